import json
import math
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recon
from recon import tables

# Texts that are no numbers, with all that CSV has to quote.
LETTERS = st.characters(categories=("L", "P", "Zs"), include_characters='\n",|')
WORDS = st.text(LETTERS.filter(lambda c: c not in "/~\\")).map("x {}".format)
CELLS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS


def same(a, b):
    return type(a) is type(b) and (a == b or (a != a and b != b))


@settings(max_examples=30)
@given(rows=st.lists(st.dictionaries(WORDS, CELLS, min_size=1), min_size=1))
def test_every_cell_reads_back_as_it_was_written(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    columns = {column for row in rows for column in row}
    tables.write(folder, rows, {"seeds": [1, 2]})
    back, record = tables.read(folder)
    assert record == {"seeds": [1, 2]}
    assert len(back) == len(rows)
    for row, read in zip(rows, back, strict=True):
        assert set(read) == columns
        assert all(same(read[column], row.get(column)) for column in columns)


def test_array_scalars_become_numbers(tmp_path):
    rows = [{"a": np.float64(0.1), "b": jnp.asarray(3), "c": np.bool_(True), "d": "tangent, 2"}]
    tables.write(tmp_path, rows, {})
    assert tables.read(tmp_path)[0] == [{"a": 0.1, "b": 3, "c": True, "d": "tangent, 2"}]


@pytest.mark.parametrize("text", ["", "1", "1e3", "True", "nan", "inf", " 7 ", "1_000", "a\rb"])
def test_a_text_that_would_change_is_refused(text, tmp_path):
    with pytest.raises(ValueError, match="would read back"):
        tables.write(tmp_path, [{"a": text}], {})
    assert not list(tmp_path.iterdir())


def test_rows_are_flat_and_there_are_some(tmp_path):
    with pytest.raises(ValueError, match="'a' holds a list"):
        tables.write(tmp_path, [{"a": [1]}], {})
    with pytest.raises(ValueError, match="'a' holds a ndarray"):
        tables.write(tmp_path, [{"a": np.zeros(3)}], {})
    with pytest.raises(ValueError, match="no rows"):
        tables.write(tmp_path, [], {})
    with pytest.raises(FileNotFoundError):
        tables.read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "python /home/ada/recon/scripts/run.py",
        "--out=/tmp/x",
        "'/opt/data/digits'",
        "C:\\Users\\ada",
        "~/recon",
        "~ada/recon",
        "file:///scratch",
        "run by ada",
        "cd /nest; make",
    ],
)
@pytest.mark.parametrize("where", ["rows", "column", "record"])
def test_a_machine_path_or_the_user_is_refused(text, where, tmp_path, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    monkeypatch.setattr("pathlib.Path.home", lambda: Path("/nest"))
    row, record = {"a": "x"}, {"command": "python scripts/run.py"}
    if where == "rows":
        row["a"] = text
    elif where == "column":
        row[text] = 1
    else:
        record["more"] = {"deep": [text]}
    with pytest.raises(ValueError, match=r"a machine path or a user's name"):
        tables.write(tmp_path, [row], record)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    ["python scripts/run.py exact", "queries/unit", "a / b", "3 ~ 4", "adaptive", "root mean"],
)
def test_ordinary_text_is_not_taken_for_a_path(text, tmp_path, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    tables.write(tmp_path, [{"a": text}], {"command": text})
    assert tables.read(tmp_path) == ([{"a": text}], {"command": text})


def test_a_record_that_is_not_json_leaves_the_old_results(tmp_path):
    tables.write(tmp_path, [{"a": 1}], {"x": 1})
    for bad in ({"x": math.inf}, {"x": object()}):
        with pytest.raises((ValueError, TypeError)):
            tables.write(tmp_path, [{"a": 2}], bad)
    assert tables.read(tmp_path) == ([{"a": 1}], {"x": 1})


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tables.write_text(tmp_path / "deep" / "a.txt", "old\n")
    with pytest.raises(UnicodeEncodeError):
        tables.write_text(path, "new \ud800")
    assert path.read_text() == "old\n"
    assert list(path.parent.iterdir()) == [path]


def test_the_run_record_says_what_ran_it(tmp_path):
    record = tables.run_record(command="make x", seeds=range(3), seconds=1.23456, note="short")
    assert (record["command"], record["seeds"], record["seconds"]) == ("make x", [0, 1, 2], 1.235)
    assert record["note"] == "short"
    age = datetime.now(UTC) - datetime.fromisoformat(record["date"])
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert record["versions"]["numpy"] == np.__version__
    assert set(record["versions"]) == {"python", "jax", "jaxlib", "numpy", "scipy", "recon"}
    assert record["device"]
    assert record["cores"] >= 1
    tables.write(tmp_path, [{"a": 1}], record)  # fit to be committed
    assert tables.read(tmp_path)[1] == record


def test_the_own_command_is_relative(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    script = str(tmp_path / "scripts" / "run.py")
    monkeypatch.setattr("sys.argv", [script, "exact", "--dim", "3", "--out=/scratch/ada/x", "a b"])
    command = tables.run_record()["command"]
    assert command == "python scripts/run.py exact --dim 3 --out=PATH 'a b'"


def test_the_commit_is_this_package_s_own(monkeypatch, tmp_path):
    """In a checkout it is HEAD; a copy inside some other repository is not taken for it."""

    def git(*words):
        run = subprocess.run(["git", "-C", str(tmp_path), *words], capture_output=True, check=True)
        return run.stdout.decode().strip()

    git("init", "--quiet")
    monkeypatch.setattr(tables, "__file__", str(tmp_path / "tables.py"))
    (tmp_path / "tables.py").write_text("x = 1\n")
    installed = tables.run_record()["versions"]["recon"]
    assert installed == tables.metadata.version("recon")
    git("add", "tables.py")
    git("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "x")
    assert tables.run_record()["versions"]["recon"] == git("rev-parse", "--short=12", "HEAD")
    (tmp_path / "tables.py").write_text("x = 2\n")
    assert tables.run_record()["versions"]["recon"].endswith(" with changes")


def test_markdown_is_a_table():
    rows = [
        {"method": "tangent|x", "queries": 12345, "error": 1.23456e-14, "ok": True},
        {"method": "bisect", "queries": 7, "error": None, "ok": False, "note": "slow"},
    ]
    assert tables.markdown(rows).splitlines() == [
        "| method | queries | error | ok | note |",
        "| --- | ---: | ---: | --- | --- |",
        "| tangent\\|x | 12,345 | 1.23e-14 | yes |  |",
        "| bisect | 7 |  | no | slow |",
    ]
    assert tables.markdown(rows, ["queries"]).splitlines()[2:] == ["| 12,345 |", "| 7 |"]
    with pytest.raises(KeyError, match="no column 'cost'"):
        tables.markdown(rows, ["cost"])
    with pytest.raises(ValueError, match="no rows"):
        tables.markdown([])


def test_committed_results_are_readable_and_private():
    """Every results folder of the repository can be read, and would be written again."""
    results = Path(recon.__file__).parent.parent / "results"
    for run in results.glob("*/run.json"):
        rows, record = tables.read(run.parent)
        assert rows
        assert record["command"]
        tables._refuse_private({"rows": rows, "record": record})
        json.dumps(record)
