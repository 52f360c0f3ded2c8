"""Practice services in a thread, and in a process that is killed, to test victims over HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import jax
import numpy as np
import pytest

from recon.victims.brought import practice, web

httpx = pytest.importorskip("httpx", reason="needs the http extra")

DIM, WIDTH, OUTPUTS = 8, 10, 3
X = np.random.default_rng(0).normal(size=(5, DIM))


@contextmanager
def running(served):
    """The service behind Python's own server in a thread; its address."""
    server = practice.plain(served, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://{practice.HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def closing(url, **how):
    with httpx.Client(trust_env=False, timeout=20) as client:
        yield web.oracle(url, client=client, **how)


class Counted:
    """A practice service that counts the requests and the rows it answers."""

    def __init__(self, dtype="float64"):
        self.inner, self.truth = practice.random(DIM, WIDTH, OUTPUTS, 1, dtype, torch=False)
        self.batches = []

    def answer(self, path, body):
        status, reply = self.inner.answer(path, body)
        if status == 200:
            self.batches.append(len(json.loads(body)["inputs"]))
        return status, reply


def gap(network, truth, n=1000):
    x = np.random.default_rng(1).normal(size=(n, DIM))
    with jax.enable_x64(True):
        found, true = np.asarray(network(x)), truth(x)
    return np.abs(found - true).max() / np.sqrt(np.mean(true.astype(float) ** 2))


class Process:
    """`recon serve` in a process of its own, which is killed and started again."""

    def __init__(self, *options):
        with socket.socket() as free:
            free.bind((practice.HOST, 0))
            self.port = free.getsockname()[1]
        sizes = ("--dim", DIM, "--width", WIDTH, "--outputs", OUTPUTS, "--dtype", "float64")
        self.argv = [sys.executable, "-m", "recon", "serve", "--port", self.port, *sizes, *options]
        self.url = f"http://{practice.HOST}:{self.port}"
        self.start()

    def start(self):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([*map(str, self.argv)], **quiet)
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(OSError), socket.create_connection((practice.HOST, self.port), 1):
                return
            time.sleep(0.02)
        self.kill()
        raise AssertionError("the service did not start")

    def kill(self):
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
