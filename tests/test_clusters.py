"""Workers on a dask cluster, runs over many devices, several processes: all in processes apart."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recon import workers
from recon.workers import WorkerError

ROOT = Path(__file__).parents[1]

CLUSTER = """
import json, sys
from functools import partial
from pathlib import Path
from distributed import LocalCluster
from recon import workers
from test_workers import dying, squared

def main(kind, folder):
    measure = partial(dying if kind == "dying" else squared, folder)
    apart = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with LocalCluster(host="127.0.0.1", **apart) as cluster:
        each = workers.map_cells(measure, range(16), str, dask=cluster.scheduler_address)
        print(json.dumps(list(each)))

if __name__ == "__main__":
    main(*sys.argv[1:])
"""

SWEEP = """
import json, sys
from dataclasses import replace
from recon.experiments.mnist import FIGURE2
from recon.experiments.rebuild import Panel, Where

def main(where):
    rates, decays = (tuple(2.0**-i for i in range(n, n + 8)) for n in (3, 0))
    sweep = replace(
        FIGURE2, panels=(Panel("linear", (20,), seeds=1),), replies=("gradient",),
        recipes=("plain",), dataset="digits", victim_steps=50, steps=20,
        grid=(("learning_rate", rates), ("weight_decay", decays)),
    )
    def count(done, of):
        print("done", done, of, flush=True)
    rows = sweep.run(where=Where(**json.loads(where)), count=count)
    print(json.dumps([row | {"seconds": None} for row in rows]), flush=True)

if __name__ == "__main__":
    main(*sys.argv[1:])
"""

SETUP = """
import json, os, sys
import jax, numpy as np
from recon import distill
from recon.experiments.bench.steps import replies

def go(mapper, count=None, **more):
    student = distill.student("mlp", (8, 8, 1), 10)
    bank = replies(16, "projection", 0, (8, 8, 1))
    probe = distill.Probe(np.asarray(bank.x), np.asarray(bank.label), np.asarray(bank.label))
    hyper = distill.Hyper(budget=np.array([4, 8, 12, 16] * 2), steps=12, batch=8)
    keys = jax.random.split(jax.random.key(0), 8)
    run = distill.train_many(
        keys, hyper, bank, student, probe, mapper=mapper, count=count, chunk=5, **more
    )
    leaves = {f"leaf{i}": leaf for i, leaf in enumerate(jax.tree.leaves(run.variables))}
    return {name: np.asarray(value) for name, value in (leaves | run.curves).items()}
"""
ONE = (
    SETUP
    + """
found = {"devices": len(jax.devices())}
for name, of in (("vmap", ()), ("one", (1,)), ("eight", (8,))):
    np.savez(f"{name}.npz", **go("mesh" if of else "vmap", *of))
for name in ("first", "saved"):
    np.savez(f"{name}.npz", **go("mesh", 8, save="run"))
for count in (3, 9):
    try:
        go("mesh", count)
    except ValueError as error:
        found[f"refused {count}"] = str(error)
print(json.dumps(found))
"""
)
TWO = (
    SETUP
    + """
assert distill.devices.join() == (os.environ["JAX_PROCESS_ID"] == "0")
assert jax.process_count() == 2
np.savez(f"mesh{jax.process_index()}.npz", **go("mesh"))
if jax.process_index() == 0:
    np.savez("vmap.npz", **go("vmap"))
print(json.dumps({"devices": len(jax.devices())}))
"""
)


def python(code, folder, *args, **environment):
    """A process that runs code in a folder; its output is JSON."""
    script = folder / "script.py"
    script.write_text(code)
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    env = os.environ | {"PYTHONPATH": path, "RECON_CACHE": str(folder)} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, str(script), *map(str, args)]
    return subprocess.Popen(command, cwd=folder, env=env, **pipes)


def devices(n):
    """The environment of a process that has n devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={n}"}


def answer(process):
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, err[-2_000:]
    return json.loads(out.splitlines()[-1])


def arrays(path):
    with np.load(path) as file:
        return dict(file)


def test_a_killed_dask_worker_loses_nothing(tmp_path):
    pytest.importorskip("distributed")
    rows = answer(python(CLUSTER, tmp_path, "dying", tmp_path))
    assert rows == [[{"cell": cell, "square": cell**2}] for cell in range(16)]
    assert (tmp_path / "died").exists()
    assert len(list((tmp_path / "cells").iterdir())) == 16


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(workers, "PATIENCE", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(WorkerError, match=f"no dask scheduler answers at {address}"):
        list(workers.map_cells(lambda *_: [], [1], str, dask=address))
    with pytest.raises(WorkerError, match="no dask scheduler answers at nonsense"):
        list(workers.map_cells(lambda *_: [], [1], str, dask="nonsense://x:1"))


def test_a_worker_of_another_version_is_named(monkeypatch):
    class Client:
        def run(self, function):
            return {"tcp://w:1": function() | {"jax": "0.1"}}

    with pytest.raises(WorkerError, match=r"worker tcp://w:1 has jax 0\.1, this process \d"):
        workers._same(Client())
    monkeypatch.setattr(Client, "run", lambda *_: {})
    with pytest.raises(WorkerError, match="no workers"):
        workers._same(Client())


def test_runs_over_eight_devices_are_those_of_one(tmp_path):
    found = answer(python(ONE, tmp_path, **devices(8)))
    assert found["devices"] == 8
    assert found["refused 3"] == "8 runs do not divide over 3 devices evenly"
    assert found["refused 9"] == "9 devices asked for, 8 are there"
    runs = {path.stem: arrays(path) for path in tmp_path.glob("*.npz") if path.stem != "run"}
    for name, array in runs["vmap"].items():
        np.testing.assert_array_equal(runs["one"][name], array)  # the same program
        np.testing.assert_array_equal(runs["first"][name], runs["eight"][name])
        np.testing.assert_array_equal(runs["saved"][name], runs["eight"][name])
        np.testing.assert_allclose(runs["eight"][name], array, rtol=1e-3, atol=1e-4)


def test_two_processes_share_the_runs_and_both_have_them_all(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    each = devices(2) | {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    both = [python(TWO, tmp_path, **each, JAX_PROCESS_ID=str(i)) for i in (0, 1)]
    assert [answer(process)["devices"] for process in both] == [4, 4]
    first, second, vmap = (arrays(tmp_path / f"{name}.npz") for name in ("mesh0", "mesh1", "vmap"))
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)
        np.testing.assert_allclose(array, vmap[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_sweep_of_64_cells_is_the_same_wherever_it_is_measured(tmp_path):
    """In turn, in two processes, over eight devices, and killed half-way and gone on with."""
    places = {name: tmp_path / name for name in ("serial", "two", "eight", "killed")}
    for place in places.values():
        place.mkdir()
    serial = answer(python(SWEEP, places["serial"], "{}"))
    assert len(serial) == 64
    two = json.dumps({"workers": 2})
    assert answer(python(SWEEP, places["two"], two)) == serial
    eight = answer(python(SWEEP, places["eight"], json.dumps({"devices": 8}), **devices(8)))
    for one, other in zip(serial, eight, strict=True):
        assert one["learning_rate"] == other["learning_rate"]
        assert one["accuracy"] == pytest.approx(other["accuracy"], abs=0.02)
        assert one["gradient_loss"] == pytest.approx(other["gradient_loss"], rel=1e-3)
    process = python(SWEEP, places["killed"], two)
    while not process.stdout.readline().startswith("done 20 "):
        pass
    process.kill()
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in (places["killed"] / "cells").iterdir()}
    assert 20 <= len(before) < 64
    assert answer(python(SWEEP, places["killed"], two)) == serial
    after = {path: path.stat().st_mtime_ns for path in (places["killed"] / "cells").iterdir()}
    assert len(after) == 64
    assert before.items() <= after.items()  # nothing was measured twice


@pytest.mark.slow
def test_a_device_count_that_does_not_divide_is_refused_before_anything_is_trained(tmp_path):
    process = python(SWEEP, tmp_path, json.dumps({"devices": 5}), **devices(5))
    _, err = process.communicate(timeout=300)
    assert "64 runs do not divide over 5 devices evenly" in err
    assert not (tmp_path / "victims").exists()
