"""Students by rows: what is planned, asked, measured, kept and refused."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from recon import cells, data, distill, victims
from recon.experiments import EXPERIMENTS, Rebuild, SettingsError, students
from recon.experiments.common import grouped
from recon.experiments.mnist import ABLATION, FIGURE2, SELECTION
from recon.experiments.rebuild import Panel, check
from recon.experiments.services import RECIPES, REPLIES
from recon.experiments.tune import GRIDS

TINY = replace(
    FIGURE2,
    panels=(Panel("linear", (20,), seeds=2),),
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
def test_every_row_plans_cells_that_differ_and_can_be_measured(name, monkeypatch):
    todo = ROWS[name].plan()
    assert len(set(todo)) == len(todo) > 0
    for cell in todo:
        assert cell.hyper.loss in distill.LOSSES
        assert cell.reply in RECIPES[cell.recipe].replies
    monkeypatch.setattr(students, "load", lambda *_: points(10_000))  # as large as MNIST's pool
    check(todo)
    monkeypatch.undo()
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


# --- what is measured


def test_a_row_for_every_student_with_what_it_cost(rows):
    of = {(r["reply"], r["seed"], r["budget"]) for r in rows}
    assert of == {(k, s, b) for k in TINY.replies for s in range(2) for b in (20,)}
    assert len(rows) == len(of)
    numbers = {r["reply"]: r["numbers"] for r in rows}
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


def test_a_killed_run_goes_on_where_it_was(rows, monkeypatch):
    more = replace(TINY, panels=(Panel("linear", (20,), seeds=4),), replies=("gradient",))
    trained, train = [], students.train

    def counted(group, *rest):
        trained.append(group[0].seed)
        return train(group, *rest)

    def stop(row):
        if row["seed"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(students, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        more.run(stop)
    assert trained == [2]  # two were there
    assert [row["seed"] for row in more.run()] == [0, 1, 2, 3]
    assert trained == [2, 3]


def test_a_row_depends_on_its_own_cell_alone(rows, monkeypatch):
    """Neither on the other seeds and budgets of a run, nor on their order."""
    monkeypatch.setattr(cells, "load", lambda _: None)  # measured anew
    monkeypatch.setattr(cells, "save", lambda *_: None)
    other = replace(TINY, panels=(Panel("linear", (30, 20), seeds=1),), replies=("gradient",))
    again = other.run(only={"budget": ("20",)})[0]
    (first,) = [r for r in rows if (r["reply"], r["budget"], r["seed"]) == ("gradient", 20, 0)]
    assert again | {"seconds": 0} == first | {"seconds": 0}


def test_students_trained_at_once_are_those_trained_in_turn(rows, monkeypatch):
    cell = next(c for c in TINY.plan() if (c.reply, c.hyper.budget) == ("gradient", 20))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    (pair,) = students.groups(
        [replace(cell, hyper=replace(cell.hyper, learning_rate=r)) for r in (0.01, 0.03)]
    )
    measured = {row["learning_rate"]: row for row in students.measure(pair)}
    (alone,) = [r for r in rows if (r["reply"], r["budget"], r["seed"]) == ("gradient", 20, 0)]
    same = measured[alone["learning_rate"]]
    assert same["gradient_loss"] == pytest.approx(alone["gradient_loss"], rel=1e-2)
    assert measured[0.01]["gradient_loss"] != measured[0.03]["gradient_loss"]


def test_a_row_of_services_that_changes_is_measured_anew(rows, monkeypatch):
    cell = next(c for c in TINY.plan() if c.reply == "gradient")
    before = students.settings([cell])
    changed = {"plain": RECIPES["plain"]._replace(members=2)}
    with monkeypatch.context() as patch:
        patch.setattr(students, "RECIPES", RECIPES | changed)
        assert students.settings([cell]) != before
    monkeypatch.setattr(students, "REPLIES", REPLIES | {"gradient": REPLIES["smoothgrad"]})
    assert students.settings([cell]) != before


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
    cells.surroundings.cache_clear()
    try:
        with pytest.raises(Measured):
            TINY.run()
    finally:
        cells.surroundings.cache_clear()


def test_cells_are_trained_alone_on_a_cpu_and_together_elsewhere(monkeypatch):
    todo = TINY.plan()
    assert students.groups(todo) == [(cell,) for cell in todo]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    together = students.groups(todo)
    assert sorted(map(str, sum(together, ()))) == sorted(map(str, todo))
    for group in together:
        assert len({(c.reply, c.seed, c.hyper.steps, c.hyper.batch) for c in group}) == 1


# --- what is refused


def test_only_chooses_cells_by_their_columns():
    rows = TINY.run(only={"reply": ("top",), "budget": ("20",), "seed": ("1",)})
    assert [(r["reply"], r["budget"], r["seed"]) for r in rows] == [("top", 20, 1)]
    for only, sentence in (
        ({"colour": ("red",)}, "no column 'colour'; there are dataset"),
        ({"budget": ("7",)}, "no budget is '7'; there are 20"),
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
        ({"queries": "all"}, "no kind of queries 'all'"),
        ({"dataset": "letters"}, "no data set 'letters'; there are digits, mnist"),
        ({"hyper": distill.Hyper(steps=0)}, "steps must be a whole number of at least 1, got 0"),
        ({"budget": 0}, "budget must be a whole number of at least 1"),
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
        assert reply.view.axes in distill.LOSSES[reply.loss].axes


# --- accelerators: full width, memory


def test_the_full_form_has_full_width_and_five_seeds():
    whole = EXPERIMENTS["fig2-cifar10"].full()
    assert {panel.victim for panel in whole.panels} == {"conv", "vgg11", "resnet18"}
    for cell in whole.plan():
        assert "half" not in cell.victim + cell.student
    by = grouped(
        [vars(cell) | {"budget": cell.hyper.budget} for cell in whole.plan()],
        ("victim", "reply", "recipe", "budget"),
    )
    assert all(len(cells_) >= 5 for cells_ in by)


def test_the_small_form_has_narrow_networks():
    few = EXPERIMENTS["fig3-cifar10"].small()
    assert {panel.victim for panel in few.panels} == {"vgg11-quarter", "resnet18-quarter"}
    assert {cell.dataset for cell in few.plan()} == {"digits"}


@pytest.mark.parametrize(
    "error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")]
)
def test_out_of_memory_says_what_to_lower(monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(distill, "train_many", fails)
    with pytest.raises(SettingsError, match=r"out of memory for linear, pool.*lower its batch of"):
        replace(TINY, steps=28).run()


def test_another_error_of_the_device_is_not_taken_for_it(monkeypatch):
    def fails(*_, **__):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(distill, "train_many", fails)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        replace(TINY, steps=29).run()
