"""The demo, on two small networks: what it finds is the truth, what it writes can be read."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from recon import data, exact, networks, tables
from recon import demo as demonstration
from recon.demo import digits
from recon.experiments import EXACT, relative_error
from recon.experiments.rebuild import Panel

WIDTH = 4
NAMES = tuple(digits.NETWORKS)


def once(train):
    """Training that is done once: every test here asks for the same victims."""
    done = {}

    def trained(name, key, width):
        if (name, width) not in done:
            done[name, width] = train(name, key, width)
        return done[name, width]

    return trained


@pytest.fixture(scope="module")
def main(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECON_CACHE", str(tmp_path_factory.mktemp("cache")))
        panels = (Panel("linear", (1, 10), seeds=1),)
        few = replace(demonstration.REBUILD, panels=panels, victim_steps=200, steps=200)
        patch.setattr(demonstration, "REBUILD", few)
        patch.setattr(digits, "train", once(digits.train))
        yield demonstration.main


@pytest.fixture(scope="module")
def demo(main, tmp_path_factory):
    """(exit code, folder) of one whole run."""
    out = tmp_path_factory.mktemp("demo")
    return main(["--width", str(WIDTH), "--out", str(out)]), out


@pytest.fixture(scope="module")
def rows(demo):
    table, _ = tables.read(demo[1])
    return {(row["network"], row["method"]): row for row in table}


def pair(folder, name):
    return [networks.load(folder / f"{name}_{which}.npz") for which in ("true", "recovered")]


@pytest.mark.parametrize("name", NAMES)
def test_recovered_network_is_the_victim(demo, rows, name):
    code, out = demo
    victim, recovered = pair(out, name)
    with jax.enable_x64(True):
        error = relative_error(recovered, victim, jax.random.key(99), 1_000)
    row = rows[name, "tangent"]
    assert code == 0
    assert row["ok"]
    assert error <= EXACT
    assert row["max_error"] <= EXACT
    assert victim.width == row["width"] == WIDTH
    assert row["units_found"] == recovered.width


@pytest.mark.parametrize("name", NAMES)
def test_agreement_and_accuracy_are_counted_on_the_test_digits(demo, rows, name):
    victim, recovered = pair(demo[1], name)
    test, row = data.digits().test, rows[name, "tangent"]
    said, again = (
        net(test.x).argmax(1) if name == "classifier" else net(test.x)[:, 0] > 1e-6
        for net in (victim, recovered)
    )
    truth = test.y if name == "classifier" else test.y >= 5
    assert row["agree"] == (said == again).sum() == len(test.y)
    assert row["tested"] == len(test.y)
    assert row["accuracy"] == pytest.approx((said == truth).mean())
    assert row["accuracy"] > (0.3 if name == "classifier" else 0.7)  # it was trained


def test_victims_are_what_the_demo_says(demo):
    classifier, scalar = (pair(demo[1], name)[0] for name in NAMES)
    assert classifier.weights.shape == (10, WIDTH)
    assert np.all(classifier.bias != 0)
    assert scalar.weights.shape == (1, WIDTH)
    assert not scalar.bias.any()
    assert not scalar.offset.any()
    np.testing.assert_allclose(np.linalg.norm(scalar.rows, axis=1), 1)


def test_the_printed_methods_run_where_they_are_defined_and_ask_more(rows):
    assert set(rows) == {
        ("classifier", "tangent"),
        *(("scalar", method) for method in exact.METHODS),
    }
    ours, bisect, membership = (rows["scalar", method] for method in exact.METHODS)
    assert bisect["ok"]
    assert bisect["max_error"] <= EXACT
    assert ours["queries"] < bisect["queries"]
    assert ours["rounds"] < bisect["rounds"]
    assert membership["gradients"] == 0 < membership["values"]
    assert not rows["classifier", "tangent"]["width_told"]


def test_an_undefined_attack_is_refused(demo):
    subject = digits.Subject("classifier", pair(demo[1], "classifier")[0], 1.0)
    with pytest.raises(ValueError, match="not defined for the classifier"):
        digits.attack(subject, "bisect", jax.random.key(0))


def test_files_are_there_and_the_pictures_are_pictures(demo):
    _, out = demo
    assert {path.name for path in out.iterdir()} == {
        "rows.csv",
        "run.json",
        "rows.png",
        "matching.png",
        "matching",
        "deep",
        *(f"{name}_{which}.npz" for name in NAMES for which in ("true", "recovered")),
    }
    from matplotlib import image

    for name in ("rows.png", "matching.png"):
        pixels = image.imread(out / name)
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.05


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_matched_one_to_one_and_pixels_agree(demo, name):
    victim, recovered = pair(demo[1], name)
    rows = digits.row_rows(digits.Subject(name, victim, 1.0), recovered)
    assert len(rows) == victim.rows.size
    for row in rows:
        assert row["true"] == pytest.approx(row["recovered"], abs=1e-11)
        assert row["cosine"] == pytest.approx(1, rel=1e-12)


def test_pairing_undoes_order_sign_and_scale():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, 6))
    order, factor = np.array([2, 0, 3, 1]), np.array([-2.0, 0.5, -1.0, 3.0])

    def network(rows):
        zeros = np.zeros(4)
        return networks.TwoLayer(rows, zeros, np.ones((1, 4)), np.zeros((1, 6)), np.zeros(1))

    subject = digits.Subject("scalar", network(rows), 1.0)
    found = digits.row_rows(subject, network(factor[:, None] * rows[order]))
    assert len(found) == 24
    for row in found:
        assert row["true"] == pytest.approx(row["recovered"])
        assert row["cosine"] == pytest.approx(1)


def test_a_decision_is_made_beyond_rounding():
    network = networks.TwoLayer(
        np.eye(2), np.zeros(2), np.ones((1, 2)), np.zeros((1, 2)), np.zeros(1)
    )
    nudged = replace(network, offset=np.array([1e-16]))
    x = np.array([[-1.0, -1.0], [1.0, 0.0], [-1.0, 1e-3]])
    for net in (network, nudged):
        np.testing.assert_array_equal(digits.decisions(net, x), [False, True, True])


def test_a_classifier_is_rebuilt_by_every_kind_of_query(demo):
    table, _ = tables.read(demo[1] / "matching")
    assert [(row["reply"], row["budget"]) for row in table] == [
        (reply, budget) for reply in ("gradient", "top", "membership") for budget in (1, 10)
    ]
    best = {row["reply"]: row["accuracy"] for row in table if row["budget"] == 10}
    assert best["gradient"] > max(best["top"], best["membership"])
    assert best["gradient"] > 0.5


def test_a_failure_is_said_and_no_earlier_result_is_left(main, demo, tmp_path, capsys):
    for stale in ("rows.png", "classifier_recovered.npz"):
        (tmp_path / stale).write_bytes((demo[1] / stale).read_bytes())
    assert main(["--width", str(WIDTH), "--out", str(tmp_path), "--budget", "4"]) == 1
    printed = capsys.readouterr()
    for name in NAMES:
        assert f"The {name} was not recovered. The query budget ran out" in printed.err
    assert "failed" in printed.out
    assert {path.name for path in tmp_path.glob("*.png")} == {"matching.png"}
    assert not list(tmp_path.glob("*_recovered.npz"))
    table, _ = tables.read(tmp_path)
    assert [row["status"] for row in table if row["method"] == "tangent"] == ["BUDGET"] * 2


def test_settings_that_make_no_sense_are_refused(main, tmp_path, capsys):
    assert main(["--width", "0", "--out", str(tmp_path)]) == 2
    assert "width must be at least 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
