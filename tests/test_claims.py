"""Claims are read from rows alone, and what rows do not hold is said to miss."""

from pathlib import Path

import pytest

from recon import tables
from recon.experiments import EXPERIMENTS, Rebuild
from recon.reports import claims, write

RESULTS = Path(__file__).parents[1] / "results"


def planted(victim="mlp", student="mlp", seeds=2, **more):
    """Gradient queries reach 0.9 at 10; membership 0.9 at 10,000."""
    curves = {
        "gradient": {1: 0.3, 10: 0.9, 100: 0.97},
        "smoothgrad": {1: 0.35, 10: 0.88, 100: 0.97},
        "membership": {10: 0.1, 1_000: 0.8, 10_000: 0.9},
    }
    names = {"dataset": "mnist", "victim": victim, "student": student, "queries": "pool"}
    names |= {"recipe": "plain", "victim_accuracy": 0.97, "failure": None, "tuned": True}
    return [
        names | {"reply": reply, "budget": b, "seed": s, "accuracy": a + 0.01 * (s - 0.5)} | more
        for reply, curve in curves.items()
        for b, a in curve.items()
        for s in range(seeds)
    ]


def lines(tmp_path, name, rows):
    """The lines of claims.md that `rows` of one experiment answer."""
    record = {"command": f"recon run {name}", "versions": {"recon": "abc"}}
    tables.write(tmp_path / name.replace("-", "_"), rows, record)
    table = [line for line in claims.markdown(tmp_path).splitlines() if line.startswith("| F")]
    return [line for line in table if claims.MISSING not in line]


def test_the_committed_claims_are_the_generated_ones():
    written = (RESULTS / claims.FILE).read_text(encoding="utf-8")
    assert written == claims.markdown(RESULTS), "run recon plot claims"


def test_every_claim_is_about_cells_that_its_experiment_plans():
    for claim in tables.rows(claims.CLAIMS):
        experiment = EXPERIMENTS[claim["experiment"]]
        assert isinstance(experiment, Rebuild)
        assert claim["answer"] in claims.ANSWERS
        planned = [vars(c) | {"budget": c.hyper.budget} for c in experiment.plan()]
        for text in claim["of"].split("; "):
            of = claims._of(text)
            assert any(all(c[k] == v for k, v in of.items()) for c in planned), (claim, of)


def test_claims_without_rows_are_said_to_miss(tmp_path):
    table = [line for line in claims.markdown(tmp_path).splitlines() if line.startswith("| F")]
    assert len(table) == len(tables.rows(claims.CLAIMS))
    assert all(claims.MISSING in line and "`recon run " in line for line in table)
    assert lines(tmp_path, "fig2-mnist", [{"a": 1, "dataset": "mnist"}]) == []
    assert lines(tmp_path, "fig2-mnist", [{"dataset": "digits"}]) == []


def test_reaching_interpolates_in_the_logarithm():
    points = [(10, 0.2), (1_000, 0.6), (10_000, 0.9)]
    assert claims.reaching(points, 0.4) == ("=", pytest.approx(100))
    assert claims.reaching(points, 0.6) == ("=", pytest.approx(1_000))
    assert claims.reaching(points, 0.95) == (">", 10_000)
    assert claims.reaching(points, 0.1) == ("<=", 10)


def test_factors_come_from_planted_curves():
    def fewer(budget):
        return claims.fewer(claims.Table(planted()), [claims._of(f"victim=mlp budget={budget}")])

    assert fewer(10) == "1,000 x at 10 gradient queries (90.0 %)"
    assert fewer(100) == "> 100 x at 100 gradient queries (97.0 %)"
    with pytest.raises(claims.MissingError):
        fewer(7)


def test_claims_are_read_from_rows(tmp_path):
    rows = [row for model in ("linear", "mlp", "conv") for row in planted(model, model)]
    rows[-1]["failure"] = "run 0 stopped at step 5"
    every = lines(tmp_path, "fig2-mnist", rows)
    of = {line.split("|")[1].strip(): line for line in every}
    assert len(of) == len(every) == 4  # cross-entropy is not there
    assert "1,000 x at 10 gradient queries" in of["F2b"]
    assert "10 gradient: 90.0 % (89.5 to 90.5)" in of["F2c"]
    assert "largest gap of the means: 5.0 points" in of["F2g"]
    assert "from 10 queries on 2.0 points" in of["F2g"]
    assert "67.50 points from the victim" in of["F2a"]
    assert "| 2 | `recon run fig2-mnist`, recon abc |" in of["F2b"]
    assert all("failed" not in line for line in every)  # of cells that none of them is about
    rows[-3]["failure"] = "run 1 stopped"  # conv, 1,000 membership queries
    rows[0]["tuned"] = False
    of = {line.split("|")[1].strip(): line for line in lines(tmp_path, "fig2-mnist", rows)}
    assert "1 students failed" in of["F2c"]
    assert "(untuned)" in of["F2a"]
    assert "(untuned)" not in of["F2b"]


def test_a_claim_counts_its_own_rows_alone(tmp_path):
    means = planted(seeds=3, queries="means")
    medoids = planted(seeds=3, queries="medoids")
    rows = [*means, *medoids, *planted(seeds=3)]
    next(r for r in rows if r["budget"] == 100)["failure"] = "run 0 stopped at step 5"
    (line,) = lines(tmp_path, "selection-mnist", rows)
    assert "10 gradient: 90.5 %" in line
    assert "10 gradient, medoids: 90.5 %" in line
    assert "| 3 | `recon run selection-mnist`" in line
    assert "failed" not in line


def test_a_claim_about_known_layers_leaves_out_settings_that_lost_a_seed(tmp_path):
    rows = []
    for recipe in ("plain", "knows hidden"):
        for temperature, shift in ((0.5, 0.0), (4.0, 0.02)):
            more = planted(seeds=3, recipe=recipe, weight_decay=0.3, temperature=temperature)
            more = [r for r in more if (r["reply"], r["budget"]) == ("gradient", 10)]
            rows += [r | {"accuracy": r["accuracy"] + shift} for r in more]
    rows[3]["failure"] = "run 0 stopped at step 5"  # of the better setting, knowing nothing
    (line,) = lines(tmp_path, "known-layers-mnist", rows)
    assert "knows nothing: 90.5 % (89.5 to 91.5); knows hidden: 92.5 % (91.5 to 93.5)" in line
    assert "the best of 2 settings" in line


def test_filters_are_counted_for_each_seed(tmp_path):
    (row,) = planted("conv", "conv", seeds=1)[1:2]
    rows = [
        row | {"layer": "Conv_0", "seed": s, "filter": k, "cosine": 0.95 if k < 2 - s else 0.5}
        for s in range(2)
        for k in range(3)
    ]
    (line,) = lines(tmp_path, "filters-mnist", rows)
    assert "10 gradient: 2, 1 of 3 in Conv_0" in line


def test_claims_are_written(tmp_path):
    path = write("claims", tmp_path)
    assert path == tmp_path / claims.FILE
    assert path.read_text(encoding="utf-8") == claims.markdown(tmp_path)
