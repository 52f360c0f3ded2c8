"""The README: its snippets run as they stand, its table of experiments is the generated one."""

import re
from pathlib import Path

import jax

from recon.cli.show import experiments_table

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, flags=re.M | re.S)


def test_the_snippets_run_as_they_stand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    there = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as users do
        for snippet in SNIPPETS:
            exec(compile(snippet, "README.md", "exec"), there)
            assert there["r"].ok
    assert (tmp_path / "stolen.npz").exists()
    assert there["bank"].cost(10).gradients == 10
    assert there["same"].mean() > 0.95


def test_every_experiment_is_in_the_table():
    assert experiments_table() in README


def test_it_can_be_read():
    assert len(README.splitlines()) <= 160
    for link in re.findall(r"\]\((results/[^)]*)\)", README):
        assert (Path(__file__).parents[1] / link).exists(), link
