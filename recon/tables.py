"""Result rows and the record of the run that made them <-> results/<experiment>/.

rows.csv holds tidy rows, one measurement a line; run.json says which command measured
them, when, with which versions and on what.  Every cell reads back as it was written:
None, bool, int, float or str.  Nothing that names a person or a folder of the machine
is written.
"""

from __future__ import annotations

import csv
import getpass
import io
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

Cell = None | bool | int | float | str
CELL = ("dataset", "victim", "student", "queries", "reply", "recipe", "budget", "seed")
Row = dict[str, Cell]

# A path with at least two parts from the root, from a home directory, or from a drive.
_PATH = re.compile(r"(?<![\w.:/)-])(?:/[\w.@+-]+){2,}|~\w*/|\b[A-Za-z]:\\|\bfile://")
# Accounts that every machine of some kind has, and that name nobody.
_NOBODY = {"root", "user", "runner", "ubuntu", "jovyan", "nobody", "unknown"}


def write(folder: str | Path, rows: Iterable[Mapping[str, Any]], record: Mapping[str, Any]) -> Path:
    """Write rows.csv and run.json into `folder`, each whole or not at all; returns `folder`.

    Columns stand in the order in which the rows first name them; a cell that a row lacks
    is None.  NumPy and JAX scalars become Python numbers.  ValueError, before anything is
    written, for no rows, for a cell that would not read back as it is (a list, "", a text
    like "1" or "True"), or for a machine path or the user's name in any text.
    """
    plain = [{str(k): _plain(str(k), v) for k, v in row.items()} for row in rows]
    if not plain:
        raise ValueError("there are no rows to write")
    _refuse_private({"rows": plain, "record": record})
    run = json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    folder = Path(folder)
    write_text(folder / "rows.csv", text_of(plain))
    write_text(folder / "run.json", run)
    return folder


def read(folder: str | Path) -> tuple[list[Row], dict[str, Any]]:
    """The rows and the record that `write` put into `folder`; FileNotFoundError if it did not."""
    folder = Path(folder)
    return rows(folder / "rows.csv"), json.loads((folder / "run.json").read_text(encoding="utf-8"))


def fits(folder: str | Path, settings: Mapping[str, Any]) -> bool:
    """Whether the rows in `folder`, if there are any, were measured with these settings."""
    try:
        _, record = read(folder)
    except (OSError, ValueError):
        return True
    was = record.get("settings", {})
    return all(was.get(name) == value for name, value in settings.items())


def others(folder: str | Path, rows: Iterable[Row]) -> tuple[list[Row], list[dict[str, Any]]]:
    """The rows that are in `folder` of other cells than these, and the records they came with; none
    where there is nothing.  A cell is known by CELL.
    """
    try:
        there, record = read(folder)
    except (OSError, ValueError):
        return [], []
    new = {tuple(row.get(name) for name in CELL) for row in rows}
    kept = [row for row in there if tuple(row.get(name) for name in CELL) not in new]
    if not kept:
        return [], []
    before = record.pop("earlier", [])
    if before:  # its own part of a record that names all
        record["command"] = record["command"].split(" && ")[-1]
        record["versions"]["recon"] = record["versions"]["recon"].split(", ")[-1]
    return kept, [*before, record]


def joined(record: dict[str, Any], earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The record of rows that came with it and with earlier ones: it names all their commands and
    commits, and keeps them as `earlier`.
    """
    if not earlier:
        return record
    every = [*earlier, record]
    commits = ", ".join(dict.fromkeys(each["versions"]["recon"] for each in every))
    return record | {
        "command": " && ".join(dict.fromkeys(each["command"] for each in every)),
        "versions": record["versions"] | {"recon": commits},
        "earlier": list(earlier),
    }


def rows(path: str | Path) -> list[Row]:
    """The rows of a CSV file with a header."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        columns, *lines = csv.reader(file)
    return [dict(zip(columns, map(_cell, line), strict=True)) for line in lines]


def text_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header, which `rows` reads back; ValueError for what would not."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([_text(column) for column in columns])
    writer.writerows([_text(row.get(column)) for column in columns] for row in rows)
    return table.getvalue()


def run_record(
    *,
    command: str | None = None,
    seeds: Sequence[int] = (),
    seconds: float | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """What a reader needs to repeat a run: taken at its end, on the machine that ran it.

    command: by default this process's own, relative to the working directory; seconds:
    wall clock of the measurement; `extra` is recorded as it is.  The date is UTC.
    """
    import jax

    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy", "scipy")}
    return {
        "command": _command() if command is None else command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": [int(seed) for seed in seeds],
        "seconds": None if seconds is None else round(float(seconds), 3),
        "device": _device(jax.devices()[0]),
        "cores": _cores(),
        "versions": {"python": platform.python_version(), **versions, "recon": _recon()},
        **extra,
    }


def markdown(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """The rows as a Markdown table, of `columns` or of all; floats to three digits.

    Columns of numbers stand to the right.  ValueError for no rows, KeyError for a column
    that no row has.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("there are no rows to show")
    known = list(dict.fromkeys(column for row in rows for column in row))
    columns = known if columns is None else list(columns)
    for column in columns:
        if column not in known:
            raise KeyError(f"no column {column!r}; there are {', '.join(known)}")
    cells = [[_plain(column, row.get(column)) for column in columns] for row in rows]
    rule = ["---:" if _numeric(column) else "---" for column in zip(*cells, strict=True)]
    lines = [columns, rule, *([_shown(cell) for cell in row] for row in cells)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def write_text(path: str | Path, text: str) -> Path:
    """Write a UTF-8 file whole or not at all, and make its folder; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _plain(column: str, value: Any) -> Cell:
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if not isinstance(value, Cell):
        raise ValueError(f"column {column!r} holds a {type(value).__name__}; rows are flat")
    return value


def _text(value: Cell) -> str:
    """One cell of rows.csv, which `_cell` reads back."""
    text = "" if value is None else repr(value) if isinstance(value, float) else str(value)
    back = _cell(text.replace("\r", "\n"))  # csv does not quote a lone carriage return
    if type(back) is not type(value) or (back != value and value == value):
        raise ValueError(f"{value!r} would read back as {back!r}")
    return text


def _cell(text: str) -> Cell:
    if text in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[text]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def _numeric(cells: Iterable[Cell]) -> bool:
    kinds = {type(cell) for cell in cells if cell is not None}
    return bool(kinds) and kinds <= {int, float}


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:.3g}"
    return cell.replace("|", "\\|").replace("\n", " ")


def _refuse_private(value: Any) -> None:
    """ValueError if any text in a nest of mappings and sequences names a path or the user."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_private(key)
            _refuse_private(item)
    elif isinstance(value, str):
        private = [match[0] for match in [_PATH.search(value)] if match]
        private += [
            name for name in _names() if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", value)
        ]
        if private:
            raise ValueError(f"{value!r} holds {private[0]!r}: a machine path or a user's name")
    elif isinstance(value, Iterable):
        for item in value:
            _refuse_private(item)


def _names() -> list[str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no account, as in some containers
        user = "nobody"
    places = [str(place) for place in (Path.home(), Path.cwd()) if len(place.parts) > 1]
    return [*places, *([] if user in _NOBODY else [user])]


def _command() -> str:
    """This process's command line, with PATH for what names a folder of the machine."""
    script = os.path.relpath(sys.argv[0]) if os.path.isabs(sys.argv[0]) else sys.argv[0]
    words = [
        "".join((*word.rpartition("=")[:2], "PATH")) if _PATH.search(word) else word
        for word in sys.argv[1:]
    ]
    return shlex.join(["python", script, *words])


def _device(device: Any) -> str:
    """The accelerator's name, or the processor's where JAX only says cpu."""
    if device.platform != "cpu":
        return str(device.device_kind)
    try:
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return f"cpu: {(names or [platform.processor() or platform.machine()])[0]}"


def _cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _recon() -> str:
    """The commit this package was run from, or its version where it is not in a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        run = subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + (" with changes" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return metadata.version("recon")
