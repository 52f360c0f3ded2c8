"""The README: its snippets run as they stand, its table of experiments is the generated one."""

import importlib
import re
from pathlib import Path

import jax
import pytest

from recon.cli.show import experiments_table

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, flags=re.M | re.S)


def test_the_snippets_run_as_they_stand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first, *others = SNIPPETS
    there = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as users do
        exec(compile(first, "README.md", "exec"), there)
    assert there["r"].ok
    assert (tmp_path / "stolen.npz").exists()
    pytest.importorskip("torch")  # `make test-torch` installs it
    importlib.import_module("torch").manual_seed(0)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for snippet in others:
            exec(compile(snippet, "README.md", "exec"), there)
    assert there["r"].ok
    assert there["bank"].cost(10).gradients == 10
    assert there["same"].mean() > 0.95


def test_every_experiment_is_in_the_table():
    assert experiments_table() in README


def test_it_can_be_read():
    assert len(README.splitlines()) <= 160
    for link in re.findall(r"\]\((results/[^)]*)\)", README):
        assert (Path(__file__).parents[1] / link).exists(), link
