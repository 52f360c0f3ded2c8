"""Services over loopback: exact recovery, costs, the command, kill -9, and the real thing."""

import json
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from served import DIM, OUTPUTS, WIDTH, Counted, Process, X, closing, gap, running

from recon import exact, ledger, oracles, service
from recon.cli import main
from recon.victims.brought import practice


@pytest.mark.parametrize(("dtype", "most"), [("float64", 1e-12), ("float32", 3.5e-4)])
def test_a_network_is_recovered_over_loopback_and_every_row_is_counted(dtype, most):
    served = Counted(dtype)
    with running(served) as url, closing(url) as oracle:
        r = exact.recover(oracle, dim=DIM, key=0)
    assert r.ok, r
    assert r.network.width == WIDTH
    assert gap(r.network, served.truth) < most
    assert r.cost.queries == r.cost.gradients == sum(served.batches)
    assert r.cost.rounds == len(served.batches)
    assert r.cost.numbers == sum(served.batches) * OUTPUTS * (DIM + 1)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_absolute_values_are_named(dtype):
    served = Counted(dtype)
    with running(served) as url, closing(f"{url}/saliency") as oracle:
        r = exact.recover(oracle, dim=DIM, key=0)
    assert not r.ok
    assert "absolute values" in str(r)
    assert r.cost.queries == sum(served.batches) <= 8


def test_the_command_attacks_a_service(capsys, tmp_path):
    pytest.importorskip("tenacity", reason="needs the http extra")
    served, out = Counted(), tmp_path / "net.npz"
    with running(served) as url:
        argv = ["attack", "--url", url, "--dim", str(DIM), "--ledger", str(tmp_path / "kept")]
        assert main([*argv, "--json", "--check", "50", "--out", str(out)]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed["queries"] + 50 == sum(served.batches)
        assert printed["max_error"] < 1e-12
        assert out.exists()
        before = len(served.batches)
        assert main(argv) == 0
        assert len(served.batches) == before  # the ledger has it all
        assert "Recovered" in capsys.readouterr().out
        assert main([*argv[:3], "--dim", "5"]) == 2
        assert "400 Bad Request: inputs have shape (1, 5)" in capsys.readouterr().err
        assert main([*argv, "--width", "5"]) == 2
        assert "--width is for random networks, not for --url" in capsys.readouterr().err
        assert main([*argv, "--model", "net.onnx"]) == 2
        assert main([*argv[:5], "--explains", "top", "--shown", "sepia"]) == 2
        assert "a view has no shown 'sepia'; there are plain, " in capsys.readouterr().err
        assert main(["attack", "--check", "5"]) == 2
    assert main([*argv[:3], "--most-rows", "0"]) == 2


def test_the_command_asks_a_service_of_pixels_at_whole_numbers_alone(capsys):
    pytest.importorskip("tenacity", reason="needs the http extra")
    served = Counted()
    inner = served.answer
    asked = []

    def answer(where, body):
        asked.extend(json.loads(body)["inputs"])
        return inner(where, body)

    served.answer = answer
    with running(served) as url:
        argv = ["attack", "--url", url, "--dim", str(DIM), "--whole"]
        assert main([*argv, "--box", "-99", "99", "--check", "50", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["max_error"] < 1e-9
        x = np.array(asked)
        assert (x == np.rint(x)).all()
        assert np.abs(x).max() <= 99
        assert np.abs(x[-50:]).max() > 50  # the check is all over the box, too
        assert main(argv) == 2
        assert "whole numbers need a box" in capsys.readouterr().err
    assert len(asked) == len(x)


# --- kill -9


REAL = pytest.param(
    (),
    id="uvicorn, PyTorch and Captum",
    marks=pytest.mark.skipif(
        not all(map(find_spec, ("uvicorn", "torch", "captum"))), reason="needs the serve extra"
    ),
)


@pytest.mark.parametrize("options", [pytest.param(("--plain",), id="plain"), REAL])
def test_a_service_killed_midway_and_started_again_costs_no_row_twice(options, tmp_path):
    pytest.importorskip("tenacity", reason="needs the http extra")
    truth = practice.random(DIM, WIDTH, OUTPUTS, dtype="float64", torch=False)[1]
    with Process(*options) as served, closing(served.url) as asked:
        calls, killed = [], []

        def fn(x):
            calls.append(len(x))
            if len(calls) == 3:
                killed.append(served.kill())
                threading.Thread(target=served.start).start()
            return asked.fn(x)

        host = service.patient(oracles.from_host(fn), attempts=20, wait=0.2)
        oracle = ledger.kept(host, tmp_path / "kept", service=served.url)
        r = exact.recover(oracle, dim=DIM, key=0)
        again = exact.recover(asked, dim=DIM, key=0)
    assert killed == [-signal.SIGKILL]
    assert r.ok
    assert r.cost == again.cost
    assert all(np.array_equal(a, vars(again.network)[name]) for name, a in vars(r.network).items())
    assert gap(r.network, truth) < 1e-12
    assert len(calls) > r.cost.rounds  # some were tried again
    assert oracle.tally.answered == r.cost.queries


def test_an_attack_killed_midway_asks_nothing_twice(tmp_path):
    pytest.importorskip("tenacity", reason="needs the http extra")
    served, path = Counted(), tmp_path / "kept"
    reached, inner = threading.Event(), served.answer

    def slow(where, body):
        reply = inner(where, body)
        if len(served.batches) == 4:
            reached.set()
            time.sleep(1)  # killed before this reply arrives
        return reply

    served.answer = slow
    with running(served) as url:
        argv = ["attack", "--url", url, "--dim", str(DIM), "--ledger", str(path), "--json"]
        child = subprocess.Popen([sys.executable, "-m", "recon", *argv], stdout=subprocess.DEVNULL)
        try:
            assert reached.wait(60)
        finally:
            child.kill()
        assert child.wait() == -signal.SIGKILL
        in_flight = served.batches[3]
        assert main(argv) == 0
        total = sum(served.batches)
        with closing(url) as oracle, jax.enable_x64(True):
            key = jax.random.split(jax.random.key(0), 2)[0]
            whole = exact.recover(oracle, dim=DIM, key=key)
    assert total == whole.cost.queries + in_flight  # what was in flight is asked once more


# --- uvicorn, PyTorch and Captum


@pytest.mark.parametrize("options", [REAL])
def test_the_real_thing(options):
    truth = practice.random(DIM, WIDTH, OUTPUTS, dtype="float64", torch=False)[1]
    found = {}
    with Process(*options) as served:
        for name in practice.EXPLANATIONS:
            with closing(f"{served.url}/{name}") as asked:
                found[name] = exact.recover(asked, dim=DIM, key=0)
        with closing(served.url) as asked:
            value, gradient = asked(X)
    assert found["jacobian"].ok
    assert gap(found["jacobian"].network, truth) < 1e-12
    for name, words in (
        ("saliency", "absolute values"),
        ("integrated", "integrated_gradients|not as the values do"),
        ("noise", "noise in the explanation"),
    ):
        assert not found[name].ok
        assert any(each in str(found[name]) for each in words.split("|"))
        assert found[name].cost.queries <= 8
    np.testing.assert_allclose(value, truth(X), rtol=1e-12)
    np.testing.assert_allclose(gradient, truth.gradient(X), rtol=1e-12)
