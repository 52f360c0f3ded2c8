"""The paper's claims against rows: factors of planted curves, what is missing, what failed."""

from pathlib import Path

import pytest

from recon import tables
from recon.experiments import EXPERIMENTS
from recon.reports import claims

RESULTS = Path(__file__).parents[1] / "results"
RECORD = {"command": "recon run x", "versions": {"recon": "abc"}}
MLP = claims.DEFAULTS | {"victim": "mlp", "student": "mlp"}


def planted(victim="mlp", student=None, seeds=2, queries="pool", recipe="plain"):
    """Gradient queries reach 0.9 at 10; membership 0.9 at 10,000."""
    curves = {
        "gradient": {1: 0.3, 10: 0.9, 100: 0.97},
        "smoothgrad": {1: 0.35, 10: 0.88, 100: 0.97},
        "membership": {10: 0.1, 1_000: 0.8, 10_000: 0.9},
    }
    names = {"dataset": "mnist", "victim": victim, "student": student or victim}
    names |= {"queries": queries, "recipe": recipe}
    names |= {"victim_accuracy": 0.97, "failure": None, "tuned": True}
    return [
        names | {"reply": reply, "budget": b, "seed": s, "accuracy": a + 0.01 * (s - 0.5)}
        for reply, curve in curves.items()
        for b, a in curve.items()
        for s in range(seeds)
    ]


def lines(results):
    text = claims.markdown(results).splitlines()
    return [line for line in text if line.startswith("| F")]


def line(results, name, text=""):
    return next(x for x in lines(results) if x.startswith(f"| {name} |") and text in x)


def test_the_committed_claims_are_the_generated_ones():
    written = (RESULTS / claims.FILE).read_text(encoding="utf-8")
    assert written == claims.markdown(RESULTS), "recon plot claims"


def test_claims_without_rows_are_said_to_miss(tmp_path):
    found = lines(tmp_path)
    assert len(found) == len(tables.rows(claims.CLAIMS))
    assert {x.split("|")[1].strip().partition(",")[0] for x in found} == {
        *("F2a", "F2b", "F2c", "F2d", "F2e", "F2f", "F2g", "F3a", "F3b", "F3c", "F3d"),
        *("F4a", "F4b", "F4c"),
    }
    assert all(claims.MISSING.format("") in x for x in found)


def test_reaching_interpolates_in_the_logarithm():
    points = [(10, 0.2), (1_000, 0.6), (10_000, 0.9)]
    assert claims.reaching(points, 0.4) == ("=", pytest.approx(100))
    assert claims.reaching(points, 0.6) == ("=", pytest.approx(1_000))
    assert claims.reaching(points, 0.95) == (">", 10_000)
    assert claims.reaching(points, 0.1) == ("<=", 10)


def test_factors_come_from_planted_curves():
    table = claims.Table(planted())

    def fewer(budget):
        return claims.fewer(table, [MLP | {"budget": budget}])

    assert fewer(10) == "1,000 x at 10 gradient queries (90.0 %)"
    assert fewer(100) == "> 100 x at 100 gradient queries (97.0 %)"
    with pytest.raises(claims.MissingError):
        fewer(7)


def test_claims_are_read_from_rows(tmp_path):
    rows = [row for model in ("linear", "mlp", "conv") for row in planted(model)]
    rows[-1]["failure"] = "run 0 stopped at step 5"  # of conv's 10,000 membership queries
    lost = next(r for r in rows if (r["victim"], r["budget"], r["seed"]) == ("conv", 1_000, 0))
    lost["failure"] = "run 0 stopped at step 5"
    tables.write(tmp_path / "fig2_mnist", rows, RECORD)
    assert "1,000 x at 10 gradient queries" in line(tmp_path, "F2b")
    assert "| 2 | `recon run x`, recon abc |" in line(tmp_path, "F2b")
    assert "10 gradient: 90.0 % (89.5 to 90.5)" in line(tmp_path, "F2c")
    assert "1 students failed" in line(tmp_path, "F2c")  # and not those it is not about
    assert "largest gap of the means: 5.0 points" in line(tmp_path, "F2g")
    assert "from 10 queries on 2.0 points" in line(tmp_path, "F2g")
    assert "67.50 points from the victim" in line(tmp_path, "F2a")
    assert claims.MISSING.format("") in line(tmp_path, "F3a")
    tables.write(tmp_path / "fig2_mnist", [r for r in rows if r["reply"] != "smoothgrad"], RECORD)
    assert claims.MISSING.format("") in line(tmp_path, "F2g")


def test_rows_of_another_kind_are_said_to_miss(tmp_path):
    tables.write(tmp_path / "fig2_mnist", [{"dataset": "mnist", "a": 1}], RECORD)
    assert claims.markdown(tmp_path) == claims.markdown(tmp_path / "none")


def test_gradient_queries_are_worth_membership_queries(tmp_path):
    """Planted: membership has 0.9 at 10,000 and 0.8 at 1,000; gradients have 0.9 at 10."""
    rows = [row | {"dataset": "cifar10"} for row in planted("conv")]
    tables.write(tmp_path / "fig2_cifar10", rows, RECORD)
    found = line(tmp_path, "F2d", "queries do what 1,000 membership queries do")
    assert "| 6.8 gradient queries do what 1,000 membership queries do (80.0 %); " in found
    assert "10 gradient queries do what 10,000 membership queries do (90.0 %) |" in found
    assert "2 of 3 panels not run" in line(tmp_path, "F2g", "CIFAR-10")
    tables.write(tmp_path / "fig2_cifar10", planted("conv"), RECORD)  # another data set's
    assert claims.MISSING.format("") in line(tmp_path, "F2d")


def test_known_layers_leave_out_settings_that_lost_a_seed(tmp_path):
    rows = []
    for recipe in ("plain", "knows hidden"):
        for temperature, shift in ((0.5, 0.0), (4.0, 0.02)):
            more = [r for r in planted(seeds=3, recipe=recipe) if r["reply"] == "gradient"]
            setting = {"weight_decay": 0.3, "temperature": temperature}
            rows += [
                r | setting | {"accuracy": r["accuracy"] + shift} for r in more if r["budget"] == 10
            ]
    rows[3]["failure"] = "run 0 stopped at step 5"  # of the better setting, knows nothing
    tables.write(tmp_path / "known_layers_mnist", rows, RECORD)
    found = line(tmp_path, "F2b, ours", "recon run x")
    assert "knows nothing: 90.5 % (89.5 to 91.5); knows hidden: 92.5 % (91.5 to 93.5)" in found


def test_filters_are_counted_for_each_seed(tmp_path):
    names = {"dataset": "mnist", "victim": "conv", "student": "conv", "reply": "gradient"}
    names |= {"budget": 10, "layer": "Conv_0", "failure": None, "accuracy": 0.9}
    rows = [
        names | {"seed": s, "filter": k, "cosine": 0.95 if k < 2 - s else 0.5}
        for s in range(2)
        for k in range(3)
    ]
    tables.write(tmp_path / "filters_mnist", rows, RECORD)
    assert "10 gradient: 2, 1 of 3 in Conv_0" in claims.markdown(tmp_path)


def test_queries_that_were_selected_are_told_apart(tmp_path):
    rows = [row for queries in ("pool", "medoids", "means") for row in planted(queries=queries)]
    tables.write(tmp_path / "selection_mnist", rows, RECORD)
    found = line(tmp_path, "F2b, ours", "recon run x")
    assert "10 gradient: 90.0" in found
    assert "10 gradient, medoids: 90.0" in found
    assert "10 gradient, means: 90.0" in found


def test_every_claim_is_about_cells_that_its_experiment_plans():
    for claim in tables.rows(claims.CLAIMS):
        assert claim["answer"] in claims.ANSWERS
        todo = EXPERIMENTS[claim["experiment"]].plan()
        planned = [vars(cell) | {"budget": cell.hyper.budget} for cell in todo]
        for text in claim["of"].split("; "):
            of = claims._of(text)
            assert any(of.items() <= cell.items() for cell in planned), f"{claim['claim']}: {of}"
