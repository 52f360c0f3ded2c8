"""A report for the owner of a model: what leaked, at what cost, and the copy itself.

    facts = owner.measure(owner.Subject(name, oracle, x), recovery)
    owner.write("DIR", facts, recovery.network)

`measure` asks the model, openly and apart from the attack; `write` draws and writes from facts.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from recon import exports, reports
from recon.networks import Network
from recon.reports.owner.facts import KIND, Facts, Subject, measure
from recon.reports.owner.figure import draw
from recon.reports.owner.text import markdown
from recon.tables import write_text

__all__ = ["Facts", "Subject", "check_folder", "markdown", "measure", "write"]

RECORD, TEXT, PICTURE = "report.json", "report.md", "figure.png"
NETWORK = {
    "network.npz": "NumPy arrays: recon.networks.load",
    "network.json": "the same, to the last bit: recon.networks.from_json",
}
FILES = (RECORD, TEXT, PICTURE, *NETWORK, *exports.FORMATS)


def check_folder(folder: str | Path) -> Path:
    """The folder, if a report may be written there; ValueError if it holds something else.

    It is made where it is missing.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = any(folder.iterdir())
    except OSError as error:
        raise ValueError(f"{folder} is no folder, or cannot be written: {error}") from error
    if there:
        try:
            kind = json.loads((folder / RECORD).read_text(encoding="utf-8"))["kind"]
        except (OSError, ValueError, KeyError, TypeError):
            kind = None
        if kind != KIND:
            raise ValueError(f"{folder} holds files that are no report: name a folder of its own")
    return folder


def write(folder: str | Path, facts: Facts, network: Network | None) -> Path:
    """Write report.md, report.json and, of a recovered model, figure and network into the folder.

    An earlier report there is replaced; ValueError for a folder that holds something else.
    Returns the path of report.md.
    """
    folder = check_folder(folder)
    kept = facts["ok"] and network is not None
    plot = importlib.util.find_spec("matplotlib") is not None
    files, missing = dict[str, str](), list[str]()
    if kept:
        models = exports.available()
        files = NETWORK | {name: exports.FORMATS[name].what for name in models}
        missing = [f"{a} needs {of.library}" for a, of in exports.FORMATS.items() if a not in files]
        missing += [] if plot else [f"{PICTURE} needs matplotlib"]
    facts = facts | {"files": files, "missing": missing, "figure": kept and plot}
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    write_text(folder / RECORD, json.dumps(facts, indent=1, allow_nan=False) + "\n")
    if kept and network is not None:
        network.save(folder / "network.npz")
        write_text(folder / "network.json", network.to_json())
        exports.write(network, folder)
        if plot:
            reports.save(folder / PICTURE, draw, [facts])
    return write_text(folder / TEXT, markdown(facts))
