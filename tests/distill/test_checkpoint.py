"""A killed run goes on from its file; a file of another run, or no room, is said."""

import dataclasses
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import MLP, OUTPUTS, same

from recon import distill
from recon.distill import Hyper, checkpoint


class Killed(Exception):
    pass


def killed_at(step):
    def progress(done, curves):
        if done == step:
            raise Killed

    return progress


@pytest.mark.parametrize("many", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_killed_run_goes_on_to_the_same_bits(curved, probe, tmp_path, many):
    keys = jax.random.split(jax.random.key(25), 2) if many else jax.random.key(25)
    go = distill.train_many if many else distill.train
    hyper = Hyper(budget=9, steps=40, batch=4, weight_decay=0.1, temperature=0.5)
    options = {"chunk": 20, "measure": 1}
    run = partial(go, keys, hyper, curved, MLP, probe, **options)
    whole, kept = run(), partial(run, save=tmp_path / "run")
    with pytest.raises(Killed):
        kept(progress=killed_at(20))
    seen = []
    resumed = kept(progress=lambda done, curves: seen.append((done, curves["loss"].shape[0])))
    assert seen == [(40, 20)]
    assert whole.measured == resumed.measured == (20, 40)
    assert same((whole.variables, whole.curves), (resumed.variables, resumed.curves))
    again = go(keys, hyper, curved, MLP, probe, save=tmp_path / "run", **options)
    assert same((whole.variables, whole.curves), (again.variables, again.curves))
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]


def test_other_settings_are_not_taken_for_the_saved_run(curved, bank, tmp_path):
    key, hyper, save = jax.random.key(26), Hyper(steps=4), tmp_path / "run.npz"
    distill.train(key, hyper, curved, MLP, save=save)
    other = dataclasses.replace(hyper, learning_rate=0.5, budget=3)
    cases = [
        ((key, other, curved), {}, r"other settings \(budget, learning_rate\)"),
        ((key, hyper, bank), {}, r"\(bank\)"),
        ((jax.random.key(1), hyper, curved), {}, r"\(initial variables, key\)"),
        ((key, hyper, curved), {"chunk": 3}, r"\(chunk\)"),
    ]
    for (key_, hyper_, bank_), options, message in cases:
        with pytest.raises(ValueError, match=message):
            distill.train(key_, hyper_, bank_, MLP, save=save, **options)
    scaled = dataclasses.replace(MLP, apply=lambda v, x: 2 * MLP.apply(v, x))
    masked = dataclasses.replace(MLP, surrogate=lambda v, x, t: MLP.apply(v, x) * t)
    frozen = [jnp.full((1, OUTPUTS), value) for value in (1.0, 2.0)]  # constants, as of told layers
    told = [dataclasses.replace(MLP, apply=lambda v, x, c=c: MLP.apply(v, x) * c) for c in frozen]
    distill.train(key, hyper, curved, told[0], save=tmp_path / "told")
    with pytest.raises(ValueError, match=r"other settings \(student\)"):
        distill.train(key, hyper, curved, told[1], save=tmp_path / "told")
    for student_ in (scaled, masked):
        with pytest.raises(ValueError, match=r"other settings \(student\)"):
            distill.train(key, hyper, curved, student_, save=save)
    whole = save.read_bytes()
    with np.load(save) as file:
        arrays = dict(file)
    for name in ("state0", "curve loss", "settings"):
        np.savez(save, **{k: v for k, v in arrays.items() if k != name})
        with pytest.raises(ValueError, match=r"run.npz is not a saved run"):
            distill.train(key, hyper, curved, MLP, save=save)
    for damaged in (whole[:100], b"", whole[: len(whole) // 2] + b"?" * (len(whole) // 2)):
        save.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"run.npz is not a saved run"):
            distill.train(key, hyper, curved, MLP, save=save)
    save.write_bytes(whole)
    assert distill.train(key, hyper, curved, MLP, save=save).ok


def test_runs_in_turn_keep_all_that_was_trained_where_a_disk_fills_up(
    curved, tmp_path, monkeypatch
):
    keys, hyper = jax.random.split(jax.random.key(44), 2), Hyper(steps=6)
    expected = distill.train_many(keys, hyper, curved, MLP, mapper="loop")
    savez, calls = np.savez, []

    def full(path, **arrays):
        calls.append(path)
        if len(calls) == 2:  # after the trial: the first chunk of the first run
            raise OSError(28, os.strerror(28))
        savez(path, **arrays)

    monkeypatch.setattr(checkpoint.np, "savez", full)
    with pytest.raises(distill.CheckpointError, match="No space left on device") as error:
        distill.train_many(keys, hyper, curved, MLP, mapper="loop", save=tmp_path / "a.run")
    assert same(error.value.run.variables, expected.variables)
    assert {file.name for file in tmp_path.iterdir()} <= {"a.run.0.npz", "a.run.1.npz"}
    assert (tmp_path / "a.run.1.npz").exists()


def test_a_folder_that_cannot_be_written_is_said_before_the_first_step(curved, tmp_path):
    (tmp_path / "file").write_text("in the way")
    called = []
    with pytest.raises(distill.CheckpointError, match=r"could not be saved to .*run\.npz") as error:
        distill.train(
            jax.random.key(27),
            Hyper(steps=4),
            curved,
            MLP,
            save=tmp_path / "file" / "run.npz",
            progress=lambda done, curves: called.append(done),
        )
    assert error.value.run is None
    assert called == []
    with pytest.raises(distill.CheckpointError, match="cannot be looked for: File name too long"):
        distill.train(jax.random.key(27), Hyper(steps=4), curved, MLP, save=tmp_path / ("a" * 300))


def test_a_disk_that_fills_up_does_not_lose_the_result(curved, tmp_path, monkeypatch):
    key, hyper = jax.random.key(28), Hyper(steps=6)
    expected = distill.train(key, hyper, curved, MLP, chunk=2)
    savez, calls = np.savez, []

    def full(path, **arrays):
        calls.append(path)
        if len(calls) > 2:  # the trial before the first step and the first chunk fit
            raise OSError(28, os.strerror(28))
        savez(path, **arrays)

    monkeypatch.setattr(checkpoint.np, "savez", full)
    with pytest.raises(distill.CheckpointError, match="No space left on device") as error:
        distill.train(key, hyper, curved, MLP, chunk=2, save=tmp_path / "run.npz")
    assert len(calls) == 4
    assert same(error.value.run.variables, expected.variables)
    monkeypatch.undo()
    # What was saved while there was room is whole, and the run goes on from it.
    resumed = distill.train(key, hyper, curved, MLP, chunk=2, save=tmp_path / "run.npz")
    assert same(resumed.variables, expected.variables)
