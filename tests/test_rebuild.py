"""Students by rows: what is planned, asked, measured, kept and refused."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon import cells, data, distill, victims, workers
from recon.experiments import EXPERIMENTS, Rebuild, SettingsError, students
from recon.experiments.common import grouped
from recon.experiments.mnist import ABLATION, FIGURE2, SELECTION, Ablation
from recon.experiments.rebuild import Panel, check
from recon.experiments.services import QUERIES, RECIPES, REPLIES, order
from recon.experiments.tune import GRIDS

TINY = replace(
    FIGURE2,
    panels=(Panel("linear", (1, 20), seeds=2),),
    replies=("membership", "gradient", "top"),
    recipes=("plain",),
    dataset="digits",
    victim_steps=200,
    steps=30,
)
ROWS = {name: e for name, e in EXPERIMENTS.items() if isinstance(e, Rebuild)} | GRIDS


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECON_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def rows():
    return TINY.run()


def points(n, dim=4, classes=3):
    """A data set of random points; nobody trains on it."""
    x = np.random.default_rng(0).random((n, dim)).astype(np.float32)
    part = data.Examples(x, np.zeros(n, np.int32))
    return data.Dataset("points", classes, (2, 2, 1), part, part, part)


# --- what is planned


@pytest.mark.parametrize("name", ROWS)
def test_every_row_plans_cells_that_differ(name):
    todo = ROWS[name].plan()
    assert len(set(todo)) == len(todo) > 0
    for cell in todo:
        assert cell.hyper.loss in distill.LOSSES
        assert cell.reply in RECIPES[cell.recipe].replies
    check(ROWS[name].small().plan())


def test_tables_share_the_cells_they_have_in_common():
    ten = []
    for experiment in (FIGURE2, ABLATION, SELECTION):
        of = {"victim": "conv", "student": "conv", "queries": "pool", "reply": "gradient"}
        of |= {"recipe": "plain", "budget": 10}
        found = [c for c in experiment.plan() if of.items() <= students.identity(c).items()]
        ten.append(found)
    assert ten[0] == ten[1] == ten[2]
    assert [cell.seed for cell in ten[0]] == [*range(10)]


def test_ten_queries_of_the_two_layer_and_the_small_conv_have_ten_seeds():
    by = ("victim", "student", "queries", "reply", "recipe", "budget")
    told = [students.identity(cell) for cell in FIGURE2.plan()]
    for cell in grouped(told, by):
        if cell[0]["budget"] == 10 and cell[0]["victim"] in ("mlp", "conv"):
            assert len(cell) >= 10


# --- what a seed asks


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1), st.integers(2, 60), st.data())
def test_a_seeds_queries_depend_on_the_seed_and_the_pool_alone(seed, size, data):
    dataset = points(size)
    few = data.draw(st.integers(1, size))
    for queries in ("pool", "gaussian"):
        every = QUERIES[queries](dataset, size, seed)
        np.testing.assert_array_equal(QUERIES[queries](dataset, few, seed), every[:few])
    assert sorted(order(size, seed)) == [*range(size)]


def test_seeds_ask_other_queries_and_gaussian_ones_are_standard_normal():
    dataset = points(400)
    first, second = (QUERIES["pool"](dataset, 10, seed) for seed in (0, 1))
    assert not np.array_equal(first, second)
    x = QUERIES["gaussian"](points(5, 50), 2_000, 0)
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 1) < 0.02


def test_medoids_are_rows_of_the_pool_and_means_are_of_clusters():
    rng = np.random.default_rng(0)
    centres = 100 * np.eye(4)[:3]
    x = np.concatenate([c + rng.normal(size=(20, 4)) for c in centres]).astype(np.float32)
    part = data.Examples(x, np.zeros(60, np.int32))
    dataset = data.Dataset("points", 3, (2, 2, 1), part, part, part)
    middles = QUERIES["means"](dataset, 3, 1)
    assert all(np.linalg.norm(middles - c, axis=1).min() < 2 for c in centres)
    medoids = QUERIES["medoids"](dataset, 3, 1)
    assert len({row.tobytes() for row in medoids}) == 3
    assert all((x == row).all(axis=1).any() for row in medoids)


# --- what is measured


def test_a_row_for_every_student_with_what_it_cost(rows):
    of = {(r["reply"], r["seed"], r["budget"]) for r in rows}
    assert of == {(k, s, b) for k in TINY.replies for s in range(2) for b in (1, 20)}
    assert len(rows) == len(of)
    numbers = {r["reply"]: r["numbers"] for r in rows if r["budget"] == 20}
    assert numbers == {"gradient": 20 * 10 * 65, "top": 20 * (64 + 10), "membership": 20 * 10}
    for row in rows:
        assert 0 <= row["accuracy"] <= 1
        assert (row["gradient_loss"] is None) == (row["reply"] == "membership")
        assert row["tuned"] is False  # MNIST's settings are not tuned for digits
    assert len({row["victim_id"] for row in rows}) == 1


def test_one_gradient_query_rebuilds_a_linear_victim():
    panel = Panel("linear", (1,), replies=("gradient",), seeds=1)
    (row,) = replace(TINY, panels=(panel,), steps=3_000).run()
    assert row["agreement"] > 0.95
    assert row["gradient_loss"] < 1e-2


def test_the_whole_pool_is_bought_once_and_told_in_the_seeds_order():
    base = next(c for c in TINY.plan() if c.reply == "gradient")
    size = len(students.load("digits").pool.x)
    cell = replace(base, seed=3, hyper=replace(base.hyper, budget=size))
    with jax.enable_x64(False):
        victim = students.victim_of(cell)
        whole = students.replies_to(cell, victim)
        few = students.replies_to(replace(cell, hyper=replace(cell.hyper, budget=5)), victim)
    np.testing.assert_array_equal(whole.x[:5], few.x)
    np.testing.assert_allclose(whole.gradient[:5], few.gradient, rtol=1e-5, atol=1e-6)


def test_the_better_half_of_an_ensemble_answers():
    (cell,) = replace(
        TINY,
        panels=(Panel("linear", (20,), ("ensemble",), ("membership",), seeds=1),),
    ).plan()
    with jax.enable_x64(False):
        trained = students.train([cell])
        (row,) = students.measure([cell])
    assert len(trained.run.failures) == RECIPES["ensemble"].members == 8
    losses = distill.ensemble.residual(trained.run.curves["membership"])
    assert row["membership_loss"] == pytest.approx(np.sort(losses)[:4].mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("recipe", "fixed", "learnt"),
    [("knows hidden", "hidden", "output"), ("knows output", "output", "hidden")],
)
def test_a_student_has_the_layers_it_knows_and_learns_the_others(recipe, fixed, learnt):
    model = victims.classifier(data.digits(), "mlp", 0, victims.Training(steps=50))
    plain = distill.student("mlp", (8, 8, 1), 10)
    student = distill.knowing(plain, model.variables, RECIPES[recipe].known)
    with jax.enable_x64(False):
        variables = student.init(jax.random.key(0))
        assert set(variables["params"]) == {learnt}
        x = np.asarray(data.digits().test.x[:3], np.float32)
        params = {fixed: model.variables["params"][fixed], learnt: variables["params"][learnt]}
        want = plain.apply({"params": params}, x)
        np.testing.assert_allclose(student.apply(variables, x), want, rtol=1e-6)
    with pytest.raises(ValueError, match="no layer 'Conv'"):
        distill.knowing(plain, model.variables, "Conv")


# --- what is kept


def test_a_finished_run_is_not_measured_again(rows, monkeypatch):
    monkeypatch.setattr(students, "train", lambda *_: pytest.fail("was measured again"))
    told = []
    assert TINY.run(told.append) == rows == told


def test_a_killed_run_goes_on_where_it_was(monkeypatch):
    other = replace(TINY, victim_steps=199)  # runs what is compiled already
    trained, train = [], students.train

    def counted(group, note):
        trained.append(group[0].reply)
        return train(group, note)

    def stop(row):
        if row["reply"] == "gradient":
            raise KeyboardInterrupt

    monkeypatch.setattr(students, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        other.run(stop)
    done = len(trained)
    assert len(other.run()) == 12
    assert len(trained) == 12
    assert done == 5


def test_other_settings_are_measured_anew(rows, monkeypatch):
    class Measured(Exception):
        pass

    def measured(*_):
        raise Measured

    monkeypatch.setattr(students, "train", measured)
    gaussian = replace(TINY, queries=("gaussian",))
    for other in (replace(TINY, steps=31), replace(TINY, victim_steps=201), gaussian):
        with pytest.raises(Measured):
            other.run()
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


def test_a_folder_that_cannot_be_written_is_said_and_does_not_stop(tmp_path, monkeypatch):
    (tmp_path / "cells").write_text("in the way")
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))
    with pytest.warns(UserWarning, match="RECON_CACHE"):
        cells.save({"a": 1}, [{"b": 2}])


def test_comments_do_not_change_what_code_does_and_numbers_do(tmp_path):
    for name in cells.MEASURING:
        path = tmp_path / (name if name.endswith(".py") else f"{name}/a.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""Doc."""\nx = 1\n')
    before = cells.code(tmp_path)
    (tmp_path / "models.py").write_text('"""Other."""\nx = 1  # one\n')
    assert cells.code(tmp_path) == before
    (tmp_path / "models.py").write_text('"""Other."""\nx = 2\n')
    assert cells.code(tmp_path) != before


# --- workers


def doubled(cell, note):
    if cell < 0:
        raise ValueError("no such cell")
    return [{"cell": 2 * cell}]


@pytest.mark.parametrize("processes", [1, 2])
def test_cells_come_in_order_and_once_and_errors_come_through(processes, tmp_path, monkeypatch):
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))
    each = workers.map_cells(doubled, [3, 1, 2], str, processes)
    assert [rows[0]["cell"] for rows in each] == [6, 2, 4]
    never = workers.map_cells(lambda *_: pytest.fail("again"), [1, 2, 3], str)
    assert [rows[0]["cell"] for rows in never] == [2, 4, 6]
    with pytest.raises(ValueError, match="no such cell"):
        list(workers.map_cells(doubled, [5, -1], str, processes))
    assert cells.load("5") == [{"cell": 10}]  # what was done is kept


def test_cells_are_trained_alone_on_a_cpu_and_together_elsewhere(monkeypatch):
    todo = TINY.plan()
    assert students.groups(todo) == [(cell,) for cell in todo]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    together = students.groups(todo)
    assert sorted(map(str, sum(together, ()))) == sorted(map(str, todo))
    for group in together:
        assert len({(c.reply, c.seed, c.hyper.steps, c.hyper.batch) for c in group}) == 1


# --- summaries


def test_a_summary_is_the_mean_over_seeds_and_counts_failures():
    of = {"victim": "a", "student": "a", "queries": "pool", "reply": "top", "recipe": "plain"}
    of |= {"budget": 1, "agreement": 0.5, "victim_accuracy": 1.0, "gradient_loss": None}
    of |= {"seconds": 2.0}
    made = [of | {"accuracy": a, "failure": None} for a in (0.1, 0.2, 0.9)]
    made.append(of | {"accuracy": 0.0, "failure": "a sentence"})
    (row,) = TINY.summary(made)
    assert (row["runs"], row["failed"], row["lowest"], row["highest"]) == (4, 1, 0.1, 0.9)
    assert row["accuracy"] == pytest.approx(0.4)
    assert row["median"] == 0.2
    assert TINY.seconds(made) == 8.0


def test_the_gain_of_a_recipe_is_over_the_same_seeds():
    of = {"victim": "a", "student": "a", "queries": "pool", "reply": "gradient", "budget": 1}
    of |= {"agreement": 0.5, "victim_accuracy": 1.0, "gradient_loss": 0.1, "seconds": 1.0}

    def row(recipe, seed, accuracy, failure=None):
        return of | {"recipe": recipe, "seed": seed, "accuracy": accuracy, "failure": failure}

    made = [row("plain", s, a) for s, a in enumerate((0.1, 0.5, 0.9))]
    made += [row("autodiff", 1, 0.4), row("autodiff", 2, 0.0, "failed")]
    ablation = Ablation("", panels=())
    gains = {few["recipe"]: few["gain"] for few in ablation.summary(made)}
    assert gains == {"plain": 0.0, "autodiff": pytest.approx(-0.1)}


# --- what is refused


def test_only_chooses_cells_by_their_columns():
    todo = replace(TINY, steps=1)
    rows = todo.run(only={"reply": ("top",), "budget": ("1",), "seed": ("1",)})
    assert [(r["reply"], r["budget"], r["seed"]) for r in rows] == [("top", 1, 1)]
    for only, sentence in (
        ({"colour": ("red",)}, "no column 'colour'; there are dataset"),
        ({"budget": ("7",)}, "no budget is '7'; there are 1, 20"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            TINY.run(only=only)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"victim": "mpl"}, "no victim 'mpl'; there are linear"),
        ({"student": "mpl"}, "no student 'mpl'"),
        ({"reply": "colour"}, "no reply 'colour'"),
        ({"recipe": "grandmother's"}, "no recipe"),
        ({"queries": "all"}, "no queries 'all'"),
        ({"budget": 0}, "a budget of 0 is not in 1 ... 256, the pool of digits"),
        ({"budget": 257}, "a budget of 257 is not in 1 ... 256"),
        ({"recipe": "knows hidden", "student": "mlp"}, "is of its victim's class"),
        ({"recipe": "unlabelled", "queries": "gaussian"}, "unlabelled images are not"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(change, sentence):
    cell = TINY.plan()[0]
    if "budget" in change:
        cell = replace(cell, hyper=replace(cell.hyper, budget=change.pop("budget")))
    with pytest.raises(SettingsError, match=sentence):
        check([replace(cell, **change)])


def test_any_number_of_gaussian_queries_may_be_asked():
    cell = TINY.plan()[0]
    many = replace(cell, queries="gaussian", hyper=replace(cell.hyper, budget=10_000))
    check([many])


def test_a_view_and_a_loss_belong_to_every_reply():
    for reply in REPLIES.values():
        _, axes = distill.LOSSES[reply.loss]
        assert reply.view.axes == axes
