"""Figures 2 to 4, the sweep and the claims: rows, resuming, what is bought, and bad input."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_run import load

from recon import data, distill, figures, tables, victims
from recon.distill import Hyper, ensemble
from recon.experiments import (
    EXPERIMENTS,
    SettingsError,
    cells,
    chosen,
    claims,
    filters,
    students,
    subjects,
)
from recon.experiments import sweep as sweeping
from recon.experiments.hyper import FIELDS, HYPER, SWEEPS, hyper
from recon.experiments.matching import Figure2, Figure3, Figure4
from recon.experiments.sweep import Sweep
from recon.victims import Classifier, Training

RESULTS = Path(__file__).parents[1] / "results"
TINY = Figure2(
    victims=("linear",),
    kinds=("membership", "gradient", "top"),
    budgets=(1, 20),
    seeds=2,
    dataset="digits",
    victim_steps=200,
    steps=30,
    together=True,
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("RECON_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def rows():
    return TINY.run()


@pytest.fixture(scope="module")
def run():
    return load("run").main


# --- rows


def test_a_row_for_every_student_with_what_it_cost(rows):
    cell = {(r["kind"], r["seed"], r["budget"]) for r in rows}
    assert cell == {(k, s, b) for k in TINY.kinds for s in range(2) for b in (1, 20)}
    assert len(rows) == len(cell)
    numbers = {r["kind"]: r["numbers"] for r in rows if r["budget"] == 20}
    assert numbers == {"gradient": 20 * 10 * 65, "top": 20 * (64 + 10), "membership": 20 * 10}
    for row in rows:
        assert 0 <= row["accuracy"] <= 1
        assert (row["gradient_loss"] is None) == (row["kind"] == "membership")
        assert row["victim"] == row["student"] == "linear"
        assert row["tuned"] == (("pool", "linear", row["kind"]) in HYPER)


def test_one_gradient_query_rebuilds_a_linear_victim():
    experiment = replace(TINY, kinds=("gradient",), budgets=(1,), seeds=1, steps=3_000)
    (row,) = experiment.run()
    assert row["agreement"] > 0.95
    assert row["gradient_loss"] < 1e-2


def test_a_finished_run_is_not_measured_again(rows, monkeypatch):
    monkeypatch.setattr(students, "_train", lambda *_: pytest.fail("was measured again"))
    told = []
    assert TINY.run(told.append) == rows == told


def test_a_killed_run_goes_on_where_it_was(monkeypatch, rows):
    # both budgets have the settings tuned at 10, so that a seed of a kind is one cell of vmap
    other = replace(TINY, seed=1, kinds=("gradient", "membership"), budgets=(10, 20), mapper="vmap")
    train, trained = students._train, []

    def counted(*arguments):
        trained.append(arguments[2])
        return train(*arguments)

    def stop(row):
        if row["kind"] == "membership":
            raise KeyboardInterrupt

    monkeypatch.setattr(students, "_train", counted)
    with pytest.raises(KeyboardInterrupt):
        other.run(stop)
    assert trained == ["gradient", "gradient", "membership"]
    all_rows = other.run()
    assert trained == ["gradient", "gradient", "membership", "membership"]
    assert len(all_rows) == 8


def test_other_settings_are_measured_anew(rows, monkeypatch):
    class Measured(Exception):
        pass

    def measured(*_):
        raise Measured

    monkeypatch.setattr(students, "_train", measured)
    for change in ({"steps": 31}, {"seed": 5}, {"distribution": "gaussian"}, {"victim_steps": 201}):
        with pytest.raises(Measured):
            replace(TINY, **change).run()
    with jax.default_matmul_precision("float32"), pytest.raises(Measured):
        TINY.run()
    monkeypatch.setattr(cells, "code", lambda package: "other code")
    cells._surroundings.cache_clear()
    try:
        with pytest.raises(Measured):
            TINY.run()
    finally:
        cells._surroundings.cache_clear()


def test_a_damaged_cell_is_measured_again(tmp_path, monkeypatch):
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))
    cells.save({"a": 1}, [{"b": 2}])
    assert cells.load({"a": 1}) == [{"b": 2}]
    assert cells.load({"a": 2}) is None
    (path,) = (tmp_path / "cells").iterdir()
    whole = path.read_text()
    for damaged in (whole[:-3], whole.replace('"b": 2', '"b": 3'), whole.split("\n")[1], ""):
        path.write_text(damaged)
        assert cells.load({"a": 1}) is None
    path.write_text(whole)
    assert cells.load({"a": 1}) == [{"b": 2}]


def test_a_folder_that_cannot_be_written_is_said_and_does_not_stop(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECON_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="set RECON_CACHE to a folder with room"):
        cells.save({"a": 1}, [])


def test_comments_do_not_change_what_code_does_and_numbers_do(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "MEASURING", ("one.py", "folder"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "two.py").write_text("y = 1\n")
    digests = []
    for text in ('"""Doc."""\nx = 1\n', '"""Other."""\nx = 1  # why\n', "x = 2\n"):
        (tmp_path / "one.py").write_text(text)
        digests.append(cells.code(tmp_path))
    assert digests[0] == digests[1] != digests[2]
    (tmp_path / "folder" / "two.py").write_text("y = 2\n")
    assert cells.code(tmp_path) != digests[2]


def test_the_measuring_files_exist():
    package = Path(cells.__file__).parents[1]
    assert all((package / name).exists() for name in cells.MEASURING)


# --- what is asked


def a_subject(distribution="pool", most=40, seeds=2):
    digits = data.digits()
    weights = jax.random.normal(jax.random.key(3), (64, 10))
    victim = Classifier("digits", "linear", 0, lambda v, x: x @ v, weights, 0.5)
    return subjects.subject_of(digits, victim, distribution, most, seeds, 0)


def test_queries_are_images_of_the_pool_or_standard_normal():
    pool = data.digits().pool.x
    np.testing.assert_array_equal(a_subject().x, pool[:80].astype(np.float32))
    assert len(a_subject(most=200).x) == len(pool)
    noise = np.asarray(a_subject("gaussian", most=1_000).x)
    assert noise.shape == (1_000, 64)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


def test_replies_of_one_explanation_are_bought_once(monkeypatch):
    bought, buy = [], subjects.distill.buy

    def counted(*arguments):
        bought.append(arguments[2])
        return buy(*arguments)

    monkeypatch.setattr(subjects.distill, "buy", counted)
    subject = a_subject()
    whole, top = subject.bank("gradient"), subject.bank("top")
    assert len(bought) == 1
    np.testing.assert_array_equal(
        top.gradient, np.asarray(whole.gradient)[np.arange(80), np.asarray(whole.label)]
    )
    assert subject.bank("membership").gradient is None
    assert subject.bank("smoothgrad").gradient.shape == (80, 10, 64)
    assert len(bought) == 3


def test_more_rows_than_the_bank_has_are_refused():
    with pytest.raises(ValueError, match="81 rows are more than the bank's 80"):
        students.rows_from(a_subject().bank("membership"), 0, 81)


def test_rows_run_around_the_end_of_the_bank():
    bank = a_subject().bank("gradient")
    part = students.rows_from(bank, 70, 20)
    np.testing.assert_array_equal(part.x, np.roll(bank.x, -70, axis=0)[:20])
    np.testing.assert_array_equal(part.label, np.roll(bank.label, -70)[:20])
    assert students.rows_from(bank, 0, 80) is bank


def test_runs_are_grouped_by_what_is_compiled():
    hypers = [Hyper(budget=b, batch=64) for b in (1, 10, 100, 1_000)]

    def budgets(mapper, together):
        groups = students._groups(hypers, mapper, together)
        return [[h.budget for h in group] for group in groups]

    assert budgets("vmap", False) == [[1], [10], [100, 1_000]]
    assert budgets("vmap", True) == [[1, 10, 100, 1_000]]
    assert budgets("loop", True) == [[1], [10], [100], [1_000]]


def test_runs_are_made_in_turn_on_a_cpu():
    on_cpu = jax.default_backend() == "cpu"
    assert students.mapper_for() == ("loop" if on_cpu else "vmap")
    assert students.mapper_for("vmap") == "vmap"
    assert students.mapper_for("loop") == "loop"


def test_the_figures_differ_in_victims_and_queries():
    assert all(victim == student for victim, student in Figure2().pairs())
    assert all(victim != student for victim, student in Figure3().pairs())
    assert Figure4().distribution == "gaussian"
    assert Figure4().pairs() == Figure2().pairs()
    kinds = tuple(kind for kind, of in subjects.KINDS.items() if of.pool)
    with pytest.raises(SettingsError, match="the pool make no sense"):
        replace(Figure4(), kinds=kinds).pairs()


# --- bad input


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"victims": ("tree",)}, "there is no model 'tree'; there are linear, mlp, conv"),
        ({"victims": ("linear:tree",)}, "there is no model 'tree'"),
        ({"victims": ()}, "no model is given"),
        ({"kinds": ("hessian",)}, "there is no kind of query 'hessian'; there are gradient"),
        ({"distribution": "uniform"}, "there is no distribution 'uniform'"),
        ({"dataset": "letters"}, "there is no data set 'letters'; there are digits, mnist"),
        ({"mapper": "pmap"}, "there is no mapper 'pmap'"),
        ({"budgets": (0, 1)}, "a budget must be at least 1"),
        ({"budgets": ()}, "a budget must be at least 1, got none"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"budgets": (10, 257)}, "a budget of 257 queries is above the pool: digits has 256"),
        ({"budgets": (10, 10)}, "a budget is given twice: 10, 10"),
        ({"kinds": ("top", "top")}, "a kind of query is given twice: top, top"),
        ({"victims": ("linear", "linear:linear")}, "a victim is given twice: linear:linear"),
        ({"victims": ("linear:mlp:conv",)}, "a victim is MODEL or MODEL:STUDENT, got 'linear:mlp"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 2**64}, "seed must be below 2,147,483,648"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(change, sentence):
    with pytest.raises(SettingsError) as caught:
        replace(TINY, **change).run()
    assert sentence in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"students": ("tree",)}, "there is no model 'tree'"),
        ({"learning_rates": (0.0,)}, "a learning rate must be above 0, got 0"),
        ({"learning_rates": (0.1, np.nan)}, "a learning rate must be above 0, got nan"),
        ({"learning_rates": (0.1, 0.1)}, "a learning rate is given twice: 0.1, 0.1"),
        ({"students": ("linear", "linear")}, "a student is given twice"),
        ({"outputs": ("odds", "odds")}, "a comparison is given twice"),
        ({"weight_decays": (-1.0,)}, "a weight decay must be at least 0, got -1"),
        ({"weight_decays": ()}, "a weight decay must be at least 0, got none"),
        ({"surrogates": (0.5, 0.0)}, "a surrogate's width must be above 0, got 0"),
        ({"narrows": (0.0,)}, "narrow must be above 0, got 0"),
        ({"batches": (0,)}, "a batch must be at least 1"),
        ({"kinds": ("gradient+pool",)}, "gradient+pool has the settings of another kind"),
        ({"kinds": ("gradient-ensemble",)}, "gradient-ensemble has the settings of another kind"),
        ({"held_out": 5_000}, "cannot hold 5000 of 1285 training examples out"),
    ],
)
def test_sweeps_that_make_no_sense_are_one_sentence(change, sentence):
    with pytest.raises(SettingsError) as caught:
        replace(Sweep().small(), **change).run()
    assert sentence in str(caught.value)


def test_the_command_line_says_what_is_wrong(run, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("RECON_DATA", raising=False)
    for argv, sentence in (
        (["fig2-mnist", "--small", "--victims", "tree"], "there is no model 'tree'"),
        (["fig2-mnist", "--small", "--budgets", "257"], "above the pool"),
        (["fig9-mnist"], "There is no experiment 'fig9-mnist'; there are exact, claims"),
        (["fig2-mnist", "--out", str(tmp_path)], "mnist is not here: set RECON_DATA"),
    ):
        assert run(argv) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert sentence in err
        assert len([line for line in err.splitlines() if line.strip()]) == 1
    monkeypatch.setenv("RECON_DATA", "")  # restored after the run below sets it
    assert run(["fig2-mnist", "--data-dir", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert f"neither in {tmp_path / 'mnist'}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_run(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert run(["fig2-mnist", "--small", "--victims", "linear", "--out", str(out)]) == 2
        assert f"{out} cannot be written" in capsys.readouterr().err


def test_a_run_with_options_writes_rows_record_and_figure(run, tmp_path, capsys, rows):
    argv = ["fig2-mnist", "--small", "--out", str(tmp_path), "--victims", "linear", "--seeds", "2"]
    argv += ["--kinds", *TINY.kinds, "--budgets", "1", "20", "--steps", "30"]
    assert run([*argv, "--victim-steps", "200", "--mapper", "auto"]) == 0
    written, record = tables.read(tmp_path)
    assert written == rows  # the very cells that were measured before
    assert record["settings"]["budgets"] == [1, 20]
    assert record["seconds"] == pytest.approx(sum(row["seconds"] for row in rows), abs=1e-2)
    assert (tmp_path / "fig2_mnist.png").exists()
    assert "victim linear" in capsys.readouterr().err


def test_the_figure_survives_students_that_failed(rows):
    from matplotlib.figure import Figure

    failed = [dict(row) for row in rows]
    failed[0]["failure"] = "run 0 stopped"
    figure = Figure()
    figures.FIGURES["fig2_mnist"](figure, failed)
    assert "1 students failed" in figure.get_supxlabel()


def test_a_summary_is_the_mean_over_seeds(rows):
    shown = TINY.summary(rows)
    assert len(shown) == 6
    mine = [r for r in rows if (r["kind"], r["budget"]) == ("gradient", 20)]
    (row,) = [r for r in shown if (r["kind"], r["budget"]) == ("gradient", 20)]
    accuracies = [r["accuracy"] for r in mine]
    assert row["runs"] == 2
    assert row["accuracy"] == pytest.approx(np.mean(accuracies))
    assert (row["accuracy_min"], row["accuracy_max"]) == (min(accuracies), max(accuracies))


# --- the sweep


def test_a_sweep_scores_on_images_that_are_not_the_test_part(monkeypatch):
    seen = []
    monkeypatch.setattr(sweeping, "trained", lambda dataset, *_: seen.append(dataset))
    monkeypatch.setattr(sweeping, "subject_of", lambda *_: None)
    monkeypatch.setattr(sweeping, "across_seeds", lambda *_: iter(()))
    assert Sweep().small().run() == []
    digits, (held,) = data.digits(), seen
    images = {row.tobytes() for row in digits.train.x}
    assert len(held.test.x) == Sweep().small().held_out
    assert all(row.tobytes() in images for row in held.test.x)
    assert len(held.train.x) == len(digits.train.x) - len(held.test.x)


def test_the_best_setting_has_the_highest_mean_and_no_failure():
    def row(rate, agreement, failure=None):
        settings = {"learning_rate": rate, "weight": 0.1, "outputs": "odds", "steps": 5, "batch": 2}
        settings |= {"seconds": 1.0}
        who = {"student": "mlp", "kind": "top", "budget": 10}
        return who | settings | {"agreement": agreement, "failure": failure}

    rows = [row(1, 0.2), row(1, 0.9), row(2, 0.6), row(2, 0.6), row(3, 0.99), row(3, 0.9, "nan")]
    (found,) = sweeping.best(rows)
    assert (found["learning_rate"], found["agreement"]) == (2, pytest.approx(0.6))
    assert (found["settings"], found["runs"]) == (3, 6)
    assert sweeping.best([row(1, 0.5, "nan")]) == []
    other = row(1, 0.7) | {"budget": 100}
    assert [best["budget"] for best in sweeping.best([row(2, 0.6), other])] == [10, 100]


def test_what_a_kind_fixes_is_not_swept():
    sweep = replace(Sweep(), weight_decays=(0.3, 1.0), surrogates=(0.5,), outputs=("odds",))
    whole = sweep.grid("gradient", (10,))
    assert {(h.weight_decay, h.surrogate) for h in whole} == {(0.3, 0.5), (1.0, 0.5)}
    undecayed = sweep.grid("gradient-undecayed", (10,))
    assert {h.weight_decay for h in undecayed} == {0.0}
    assert len(undecayed) == len(whole) / 2  # once each
    assert {h.surrogate for h in sweep.grid("gradient-autodiff", (10,))} == {None}
    assert {h.points for h in sweep.grid("smoothgrad-own", (10,))} == {8}
    assert {h.outputs for h in sweep.grid("membership-entropy", (10,))} == {"entropy"}


def test_membership_queries_have_no_lambda_to_sweep():
    sweep = Sweep()
    whole = len(sweep.learning_rates) * len(sweep.outputs) * 2
    counts = {kind: len(sweep.grid(kind, (1, 10))) for kind in sweep.kinds}
    assert counts["membership"] == whole
    assert counts["gradient"] == whole * len(sweep.weights)
    assert counts["membership-entropy"] == whole // len(sweep.outputs)
    assert {hyper.outputs for hyper in sweep.grid("membership-entropy", (1,))} == {"entropy"}


def test_convolutional_students_are_swept_over_budgets_and_seeds_of_their_own(monkeypatch):
    asked = []
    monkeypatch.setattr(sweeping, "load", lambda name, *_: data.digits())
    monkeypatch.setattr(sweeping, "trained", lambda *_: None)
    monkeypatch.setattr(sweeping, "subject_of", lambda *_: None)

    def across(subject, model, hypers, seeds, *_):
        asked.append((model, seeds, {h.budget for h in hypers["gradient"]}))
        return iter(())

    monkeypatch.setattr(sweeping, "across_seeds", across)
    Sweep(held_out=200).run()
    small, large = {1, 10, 100}, {10, 100}
    assert asked == [("linear", 2, small), ("mlp", 2, small), ("conv", 1, large)]


@pytest.mark.parametrize("distribution", SWEEPS)
def test_the_table_of_hyperparameters_is_what_the_committed_sweeps_chose(distribution):
    rows = [row for name in SWEEPS[distribution] for row in tables.read(RESULTS / name)[0]]
    chosen = {}
    for row in sweeping.best(rows):
        if row["kind"] == "smoothgrad":  # matched with the settings of gradients
            continue
        unsaid = {"narrow": Hyper().narrow} if row["narrow"] is None else {}
        if subjects.KINDS[row["kind"]].loss == "membership":
            unsaid |= {"weight": Hyper().weight}
        of = chosen.setdefault((distribution, row["student"], row["kind"]), {})
        of[row["budget"]] = {name: (row | unsaid)[name] for name in FIELDS}
    table = {of: budgets for of, budgets in HYPER.items() if of[0] == distribution}
    found = {
        of: {b: {name: getattr(h, name) for name in FIELDS} for b, h in budgets.items()}
        for of, budgets in table.items()
    }
    assert found == chosen
    for student, kind in (("no such student", "top"), ("conv_large", "gradient")):
        assert hyper(student, kind, 10, distribution) == (Hyper(), False)


def test_a_budget_has_the_settings_of_the_largest_swept_one_that_is_not_above_it():
    swept = HYPER["pool", "conv", "gradient"]
    assert set(swept) == {10, 100}
    for budget, of in ((1, 10), (10, 10), (99, 10), (100, 100), (10_000, 100)):
        expected = replace(swept[of], budget=budget), True
        assert hyper("conv", "gradient", budget) == expected


def test_kinds_share_settings():
    gradient, tuned = hyper("conv", "gradient")
    assert tuned
    assert hyper("conv", "smoothgrad") == hyper("conv", "gradient-whole") == (gradient, True)
    own = replace(gradient, points=8)
    assert hyper("conv", "smoothgrad-own") == (own, True)
    assert hyper("conv", "gradient-autodiff") == (replace(gradient, surrogate=None), True)
    assert hyper("conv", "gradient-undecayed") == (replace(gradient, weight_decay=0.0), True)
    assert hyper("conv", "gradient+pool") == (replace(gradient, unasked=64), False)
    membership, _ = hyper("conv", "membership")
    pool = replace(membership, steps=4_000, unasked=64)
    assert hyper("conv", "membership+pool") == (pool, False)


# --- chosen queries


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 5), st.integers(1, 3))
def test_medoids_are_different_rows_and_the_same_for_a_seed(count, seed, spread):
    x = np.random.default_rng(seed).integers(0, spread, (12, 3)) / 4  # rows repeat
    x = np.column_stack([x, np.arange(12) * 1e-3])  # so that a row has a name
    middles = chosen.means(x, count, seed)
    assert middles.shape == (count, 4)
    assert np.isfinite(middles).all()
    rows = chosen.medoids(x, middles)
    assert len({*rows[:, 3].tolist()}) == count
    assert {*rows[:, 3].tolist()} <= {*x[:, 3].tolist()}
    assert rows.tolist() == chosen.medoids(x, chosen.means(x, count, seed)).tolist()


def test_middles_are_those_of_clusters_that_are_far_from_each_other():
    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(4) * 100, 25, axis=0) + rng.normal(size=(100, 4))
    start = next(  # k-means from rows of one cluster alone may stay there
        s for s in range(50) if len({*(chosen.means(x, 4, s).argmax(axis=1).tolist())}) == 4
    )
    middles = chosen.means(x, 4, start)
    middles = middles[middles.argmax(axis=1).argsort()]
    np.testing.assert_allclose(middles, x.reshape(4, 25, 4).mean(axis=1), rtol=1e-5, atol=1e-4)
    nearest = chosen.medoids(x, middles)
    for middle, row, cluster in zip(middles, nearest, x.reshape(4, 25, 4), strict=True):
        distances = np.linalg.norm(cluster - middle, axis=1)
        assert row.tolist() == cluster[distances.argmin()].tolist()


def test_all_kinds_ask_the_same_chosen_queries():
    small = EXPERIMENTS["chosen_mnist"].small()
    experiment = replace(small, victims=("linear",), budgets=(1, 5), seeds=1, steps=5)
    rows = experiment.run()
    assert [(r["kind"], r["budget"], r["distribution"]) for r in rows] == [
        (kind, budget, choice)
        for budget in (1, 5)
        for choice in ("medoids", "means")
        for kind in ("gradient", "membership")
    ]
    assert [(r["distribution"], r["runs"]) for r in experiment.summary(rows)] == [
        (row["distribution"], 1) for row in rows
    ]


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("chosen_mnist", {"choices": ()}, "choices are of medoids, means"),
        ("chosen_mnist", {"choices": ("means", "middles")}, "choices are of medoids, means"),
        ("chosen_mnist", {"choices": ("means", "means")}, "a choice is given twice"),
        ("chosen_mnist", {"distribution": "gaussian"}, "clusters are of the pool, not of gaussian"),
        ("chosen_mnist", {"conv_budgets": (0,)}, "a budget must be at least 1, got 0"),
        ("told_gaussian", {"victims": ("linear",)}, "of a victim mlp or conv of their class"),
        ("told_gaussian", {"victims": ("mlp:conv",)}, "of a victim mlp or conv of their class"),
        ("told_gaussian", {"kinds": ("membership",)}, "students ask for gradients"),
        ("told_gaussian", {"surrogates": (0.0,)}, "a surrogate's width must be above 0, got 0"),
        ("told_gaussian", {"surrogates": ()}, "no surrogate's width is given"),
        ("told_gaussian", {"most": 9}, "most must be at least 10, got 9"),
        ("told_mnist", {"conv_budgets": (200,)}, "most must be at least 200, got 100"),
        ("filters_mnist", {"victims": ("mlp",)}, "filters are those of a victim conv"),
        ("filters_mnist", {"kinds": ("gradient+pool",)}, "not paired for gradient\\+pool students"),
        ("filters_mnist", {"kinds": ("gradient-ensemble",)}, "not paired for gradient-ensemble"),
        ("filters_mnist", {"conv_budgets": (0,)}, "a budget must be at least 1, got 0"),
        ("told_gaussian", {"weight_decays": ()}, "a weight decay must be at least 0, got none"),
    ],
)
def test_settings_of_one_experiment_that_make_no_sense_are_refused(name, change, sentence):
    with pytest.raises(SettingsError, match=sentence):
        replace(EXPERIMENTS[name].small(), **change).run()


def test_budgets_that_no_pair_uses_are_not_looked_at():
    experiment = EXPERIMENTS["chosen_mnist"].small()
    unused = replace(experiment, victims=("mlp",), conv_budgets=(100_000,))
    assert unused.pairs() == [("mlp", "mlp")]
    with pytest.raises(SettingsError, match="100,000 queries is above the pool"):
        replace(unused, victims=("conv",)).run()


def test_more_middles_than_rows_are_refused():
    with pytest.raises(ValueError, match="3 middles have no row each among 2"):
        chosen.medoids(np.zeros((2, 4)), np.zeros((3, 4)))


# --- ensembles


def test_the_members_that_fit_best_answer_by_their_mean_logits():
    logits = jnp.asarray([[[3.0, 0.0, 1.0]], [[0.0, 2.0, 1.5]], [[0.0, 2.0, 1.0]]])  # [R, n, K]
    member = distill.Student(lambda key: None, lambda variables, x: variables + 0 * x[:, :1])
    assert ensemble.mean(member) is ensemble.mean(member)
    mean = ensemble.mean(member).apply(logits, jnp.zeros((1, 4)))
    np.testing.assert_allclose(mean, [[1.0, 4 / 3, 3.5 / 3]], rtol=1e-6)
    losses = np.full((4, 100), 0.5)
    losses[:, -1] = 9.0  # one step is a draw: the mean over the last five decides
    losses[2, -5:], losses[3, -5:] = 0.1, 0.2
    losses[0, 50:] = np.nan  # it failed
    assert ensemble.closest(losses, 2).tolist() == [2, 3]
    assert ensemble.closest(losses, 4).tolist() == [2, 3, 1, 0]


def test_an_ensemble_is_the_better_half_of_students_trained_alone():
    small = EXPERIMENTS["ensemble_mnist"].small()
    kinds = ("gradient", "gradient-ensemble")
    experiment = replace(small, victims=("linear",), kinds=kinds, budgets=(3,), seeds=1, steps=30)
    single, several = experiment.run()
    assert (single["members"], several["members"]) == (1, 8)
    assert several["numbers"] == single["numbers"]  # no more queries
    dataset = subjects.load("digits", 0, False, "pool", (3,))
    victim = subjects.trained(dataset, "linear", 0, 1_000, lambda text: None)
    subject = subjects.subject_of(dataset, victim, "pool", 3, 1, 0)
    key = jax.random.fold_in(jax.random.key(0), 0)
    keys = [key, *(jax.random.fold_in(key, i) for i in range(1, 8))]
    found, _ = hyper("linear", "gradient", 3)
    with jax.enable_x64(False):
        bank = students.rows_from(subject.bank("gradient"), 0, 3)
        student = students.student("linear", dataset.shape, dataset.classes)
        settings = replace(found, steps=30)
        runs = [distill.train(key, settings, bank, student) for key in keys]
        fits = [ensemble.residual(run.curves["loss"]) for run in runs]
        best = np.argsort(fits)[:4]
        x = jnp.asarray(dataset.test.x, jnp.float32)
        mean = np.mean([student.apply(runs[r].variables, x) for r in best], axis=0)
    assert several["accuracy"] == pytest.approx((mean.argmax(1) == dataset.test.y).mean(), abs=0.01)
    of = np.mean([ensemble.residual(runs[r].curves["gradient"]) for r in best])
    assert several["gradient_loss"] == pytest.approx(of, rel=1e-3)
    alone = ensemble.residual(runs[0].curves["gradient"])
    assert single["gradient_loss"] == pytest.approx(alone, rel=1e-3)


# --- the claims


def test_the_committed_claims_are_the_generated_ones():
    written = (RESULTS / claims.FILE).read_text(encoding="utf-8")
    assert written == claims.markdown(RESULTS), "run scripts/run.py claims"


def test_claims_without_rows_are_said_to_miss(tmp_path):
    lines = claims.markdown(tmp_path).splitlines()
    table = [line for line in lines if line.startswith("| F")]
    assert [line.split("|")[1].strip() for line in table] == [
        *("F2a", "F2b", *["F2b, ours"] * 4, "F2c", *["F2c, ours"] * 5, "F2g"),
        *("F3a", "F3b", "F3c", "F4a", *["F4a, ours"] * 2, "F4b", *["F4b, ours"] * 2),
    ]
    assert all(claims.MISSING in line for line in table)


def test_reaching_interpolates_in_the_logarithm():
    points = [(10, 0.2), (1_000, 0.6), (10_000, 0.9)]
    assert claims.reaching(points, 0.4) == ("=", pytest.approx(100))
    assert claims.reaching(points, 0.6) == ("=", pytest.approx(1_000))
    assert claims.reaching(points, 0.95) == (">", 10_000)
    assert claims.reaching(points, 0.1) == ("<=", 10)


def planted(victim="mlp", student="mlp", seeds=2):
    """Gradient queries reach 0.9 at 10; membership 0.9 at 10,000."""
    curves = {
        "gradient": {1: 0.3, 10: 0.9, 100: 0.97},
        "smoothgrad": {1: 0.35, 10: 0.88, 100: 0.97},
        "membership": {10: 0.1, 1_000: 0.8, 10_000: 0.9},
    }
    names = {"dataset": "mnist", "victim": victim, "student": student}
    names |= {"victim_accuracy": 0.97, "failure": None, "tuned": True}
    return [
        names | {"kind": kind, "budget": b, "seed": s, "accuracy": a + 0.01 * (s - 0.5)}
        for kind, curve in curves.items()
        for b, a in curve.items()
        for s in range(seeds)
    ]


def test_factors_come_from_planted_curves():
    rows = planted()
    assert claims.fewer(rows, "mlp", "mlp", 10) == "1,000 x at 10 gradient queries (90.0 %)"
    assert claims.fewer(rows, "mlp", "mlp", 100) == "> 100 x at 100 gradient queries (97.0 %)"
    with pytest.raises(claims.MissingError):
        claims.fewer(rows, "mlp", "mlp", 7)


def test_claims_are_read_from_rows(tmp_path):
    rows = [row for model in ("linear", "mlp", "conv") for row in planted(model, model)]
    rows[-1]["failure"] = "run 0 stopped at step 5"
    record = {"command": "python scripts/run.py fig2_mnist", "versions": {"recon": "abc"}}
    tables.write(tmp_path / "fig2_mnist", rows, record)
    lines = claims.markdown(tmp_path).splitlines()
    of = {line.split("|")[1].strip(): line for line in lines if line.startswith("| F")}
    assert "1,000 x at 10 gradient queries" in of["F2b"]
    assert "10 gradient: 90.0 % (89.5 to 90.5)" in of["F2c"]
    assert "1 students failed" in of["F2c"]
    assert "largest gap of the means: 5.0 points" in of["F2g"]
    assert "from 10 queries on 2.0 points" in of["F2g"]
    assert "67.50 points from the victim" in of["F2a"]
    assert "| 2 | `python scripts/run.py fig2_mnist`, recon abc |" in of["F2b"]
    assert claims.MISSING in of["F3a"]
    assert "| 1 or 2 |" in of["F2c"]  # of the cell with a failure one seed is left
    tables.write(tmp_path / "fig2_mnist", [r for r in rows if r["kind"] != "smoothgrad"], record)
    assert claims.MISSING in next(x for x in claims.markdown(tmp_path).splitlines() if "F2g" in x)


def test_a_claim_about_told_students_leaves_out_settings_that_lost_a_seed(tmp_path):
    rows = []
    for student in ("mlp, told nothing", "mlp, told hidden"):
        for width, shift in ((0.5, 0.0), (4.0, 0.02)):
            more = planted("mlp", student, seeds=3)
            more = [r for r in more if (r["kind"], r["budget"]) == ("gradient", 10)]
            setting = {"weight_decay": 0.3, "surrogate": width}
            rows += [r | setting | {"accuracy": r["accuracy"] + shift} for r in more]
    rows[3]["failure"] = "run 0 stopped at step 5"  # of the better setting, told nothing
    record = {"command": "python scripts/run.py told_mnist", "versions": {"recon": "abc"}}
    tables.write(tmp_path / "told_mnist", rows, record)
    line = next(x for x in claims.markdown(tmp_path).splitlines() if "told_mnist" in x)
    assert "told nothing: 90.5 % (89.5 to 91.5); told hidden: 92.5 % (91.5 to 93.5)" in line


def test_filters_are_counted_for_each_seed(tmp_path):
    names = {"dataset": "mnist", "victim": "conv", "student": "conv", "kind": "gradient"}
    names |= {"budget": 10, "layer": "Conv_0", "failure": None}
    rows = [
        names | {"seed": s, "filter": k, "cosine": 0.95 if k < 2 - s else 0.5, "accuracy": 0.9}
        for s in range(2)
        for k in range(3)
    ]
    record = {"command": "python scripts/run.py filters_mnist", "versions": {"recon": "abc"}}
    tables.write(tmp_path / "filters_mnist", rows, record)
    assert "10 gradient: 2, 1 of 3 in Conv_0" in claims.markdown(tmp_path)


def test_rows_of_another_kind_are_said_to_miss(tmp_path):
    record = {"command": "python scripts/run.py fig2_mnist", "versions": {"recon": "abc"}}
    tables.write(tmp_path / "fig2_mnist", [{"a": 1}], record)
    assert claims.markdown(tmp_path) == claims.markdown(tmp_path / "none")


def test_a_claim_about_chosen_queries_counts_their_rows_alone(tmp_path):
    means = [row | {"distribution": "means"} for row in planted("mlp", "mlp", seeds=3)]
    medoids = [row | {"distribution": "medoids"} for row in planted("mlp", "mlp", seeds=5)]
    medoids[0]["failure"] = "run 0 stopped at step 5"
    record = {"command": "python scripts/run.py chosen_mnist", "versions": {"recon": "abc"}}
    tables.write(tmp_path / "chosen_mnist", means + medoids, record)
    line = next(x for x in claims.markdown(tmp_path).splitlines() if "means of clusters" in x)
    assert "| 3 | `python scripts/run.py chosen_mnist`" in line
    assert "failed" not in line


def test_the_command_writes_the_claims(run, tmp_path, capsys):
    assert run(["claims", "--results", str(tmp_path)]) == 0
    assert (tmp_path / claims.FILE).read_text(encoding="utf-8") == claims.markdown(tmp_path)
    assert run(["claims", "--results", str(tmp_path / "none")]) == 2
    assert "none is no folder" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_experiments_are_listed():
    assert {"fig2_mnist", "fig3_mnist", "fig4_mnist", "sweep"} <= EXPERIMENTS.keys()


@pytest.mark.parametrize(
    ("model", "layers", "learnt"),
    [
        ("conv", "Conv", {"Dense_0", "Dense_1"}),
        ("conv", "Dense", {"Conv_0", "Conv_1"}),
        ("mlp", "hidden", {"output"}),
    ],
)
def test_a_student_that_is_told_has_the_victims_layers_and_no_others(model, layers, learnt):
    digits = data.digits()
    victim = victims.classifier(digits, model, 0, Training(steps=20))
    subject = replace(a_subject(), victim=victim, told=layers)
    student = students.student_of(subject, model)
    assert student is students.student_of(subject, model)  # what was compiled is shared
    variables = student.init(jax.random.key(1))
    assert set(variables["params"]) == learnt
    rest = {k: v for k, v in victim.variables["params"].items() if k in learnt}
    x = jnp.asarray(digits.test.x[:5], jnp.float32)
    theirs = victim.f(victim.variables, x)
    np.testing.assert_allclose(student.apply({"params": rest}, x), theirs, rtol=1e-5, atol=1e-5)
    masked = student.surrogate({"params": rest}, x, 0.5)
    np.testing.assert_allclose(masked, theirs, rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(student.apply(variables, x) - theirs).max()) > 1e-3


def test_layers_that_a_student_cannot_have_are_refused():
    digits = data.digits()
    victim = victims.classifier(digits, "mlp", 0, Training(steps=20))
    with pytest.raises(ValueError, match="a linear cannot have layers of a mlp"):
        students.student_of(replace(a_subject(), victim=victim, told="hidden"), "linear")
    with pytest.raises(ValueError, match="the victim mlp has no layer 'Hidden'"):
        students.student_of(replace(a_subject(), victim=victim, told="Hidden"), "mlp")


def test_told_students_are_cells_of_their_own():
    few = replace(EXPERIMENTS["told_mnist"].small(), victims=("mlp",), steps=20)
    rows = few.run()
    names = ["mlp, told nothing", "mlp, told hidden", "mlp, told output"]
    assert [row["student"] for row in rows] == names
    assert len({row["accuracy"] for row in rows}) == 3
    plain = replace(TINY, victims=("mlp",), kinds=("gradient",), budgets=(10,), seeds=1)
    (alone,) = replace(plain, victim_steps=1_000, steps=20).run()
    assert alone["agreement"] == pytest.approx(rows[0]["agreement"], abs=0.1)


def test_filters_are_paired_whatever_their_order_and_scale():
    rng = np.random.default_rng(3)
    shapes = {"Conv_0": (3, 3, 1, 6), "Conv_1": (3, 3, 6, 8)}
    theirs = {name: {"kernel": rng.normal(size=shape)} for name, shape in shapes.items()}
    order, scale = rng.permutation(6), rng.uniform(0.1, 9.0, 6)
    last = rng.permutation(8)
    ours = {
        "Conv_0": {"kernel": theirs["Conv_0"]["kernel"][..., order] * scale},
        "Conv_1": {"kernel": theirs["Conv_1"]["kernel"][:, :, order][..., last] / scale[:, None]},
    }
    ours["Conv_1"]["kernel"][..., 0] = 0  # one died
    for layer, (a, b) in filters.paired(theirs, ours).items():
        cosines = [filters._beside(a[..., k], b[..., k])["cosine"] for k in range(a.shape[-1])]
        dead = layer == "Conv_1"
        assert sorted(np.round(cosines, 9)) == [0.0] * dead + [1.0] * (len(cosines) - dead)
