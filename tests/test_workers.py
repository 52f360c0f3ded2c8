"""Students measured in processes of their own are those measured here."""

from dataclasses import replace

import pytest

from recon.experiments.mnist import FIGURE2
from recon.experiments.rebuild import Panel, Where


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(tmp_path, monkeypatch):
    panel = Panel("linear", (1, 5), replies=("gradient",), recipes=("plain",), seeds=1)
    few = replace(FIGURE2, panels=(panel,), dataset="digits", victim_steps=50, steps=10)

    def rows(processes):
        monkeypatch.setenv("RECON_CACHE", str(tmp_path / str(processes)))
        return [row | {"seconds": None} for row in few.run(where=Where(processes))]

    assert rows(2) == rows(1)
