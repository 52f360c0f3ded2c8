"""A victim on the host that errs at will, and attacks on it in a process of their own."""

import multiprocessing
import os
import signal
import sqlite3
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from recon import distill, exact, ledger, oracles
from recon.networks import TwoLayer

DIM, WIDTH, OUTPUTS = 10, 12, 3
ROW = 8 * DIM  # bytes of a query in the log
SERVICE = "the victim of these tests"

kept = partial(ledger.kept, service=SERVICE)
processes = multiprocessing.get_context("forkserver")  # JAX's threads do not survive a fork
processes.set_forkserver_preload(["recon.exact", "recon.distill", "recon.ledger"])


def truth():
    random = np.random.default_rng(5)
    shapes = ((WIDTH, DIM), (WIDTH,), (OUTPUTS, WIDTH), (OUTPUTS, DIM), (OUTPUTS,))
    return TwoLayer(*(random.normal(size=shape) for shape in shapes))


class Service:
    """The victim on the host; `fault(call, x, reply)` spoils a reply, or raises."""

    def __init__(self, fault=lambda call, x, reply: reply):
        self.fault, self.calls, self.oracle = fault, [], oracles.from_host(self.reply)

    def reply(self, x):
        self.calls.append(x)
        return self.fault(len(self.calls), x, (truth()(x), truth().gradient(x)))

    @property
    def rows(self):
        return np.concatenate(self.calls)


def service(log, pause, x):
    """The victim, which writes a query down as it comes in, then takes a while to answer."""
    x.astype(float).tofile(log)  # what write(2) has taken outlives the process, if not the machine
    log.flush()
    time.sleep(pause)
    return truth()(x), truth().gradient(x)


def exactly(oracle):
    r = exact.recover(oracle, dim=DIM, key=3, width=WIDTH)
    assert r.ok
    return vars(r.network) | {"queries": r.cost.queries}


def distilled(oracle):
    bank = distill.buy(oracle, np.random.default_rng(6).normal(size=(40, DIM)), chunk=5)
    return {"x": bank.x, "probabilities": bank.probabilities, "gradient": bank.gradient}


ATTACKS = {"exact": exactly, "distill": distilled}


def attack(name, folder, path=None, pause=0.002, ready=None):
    """Run an attack through a ledger, if there is a path, and write its result down."""
    with open(folder / "log", "ab") as log:
        oracle = oracles.from_host(partial(service, log, pause))
        if path is not None:
            oracle = kept(oracle, path)
        if ready is not None:
            ready.set()
        result = ATTACKS[name](oracle)
    np.savez(folder / "part.npz", **result)
    (folder / "part.npz").replace(folder / "result.npz")


def run(name, folder, path=None, after=None, pause=0.002):
    """The same in another process, killed with signal 9 `after` seconds of it, if not None.

    Seconds count from when it is about to ask, or where the service pauses for long, from when
    that was asked.  Returns whether the attack was killed, and the seconds it took.
    """
    ready = processes.Event()
    process = processes.Process(target=attack, args=(name, folder, path, pause, ready))
    process.start()
    assert ready.wait(60)
    while pause > 1 and not logged(folder):
        time.sleep(0.01)
    start = time.monotonic()
    process.join(60 if after is None else after)
    if process.exitcode is None:
        with suppress(ProcessLookupError):  # it ended in this very moment
            os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode in ((0,) if after is None else (0, -signal.SIGKILL))
    return process.exitcode != 0, time.monotonic() - start


def logged(folder):
    """The queries the service saw, in order."""
    path = folder / "log"
    data = path.read_bytes() if path.exists() else b""
    assert len(data) % ROW == 0
    return [data[i : i + ROW] for i in range(0, len(data), ROW)]


def answered(path):
    """The queries with their replies that are in a ledger, and how often all were sent."""
    if not Path(path).exists():
        return {}, 0
    db = sqlite3.connect(path)
    try:
        rows = list(db.execute("SELECT x, value, gradient FROM replies WHERE value IS NOT NULL"))
        ((sent,),) = db.execute("SELECT total(sent) FROM replies")
    finally:
        db.close()
    return {x: (value, gradient) for x, value, gradient in rows}, int(sent)
