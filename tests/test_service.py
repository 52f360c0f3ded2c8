"""Patience with a service: retries of what passes, back-off, a rate; by a clock of its own."""

import sys
import time

import numpy as np
import pytest
from attacked import DIM, WIDTH, kept, truth

from recon import exact, oracles, service


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where something waits; the waits."""
    waits = []
    monkeypatch.setattr(time, "monotonic", lambda: 100.0 + sum(waits))
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


def failing(errors, asked):
    """A victim that raises the errors in turn, None for none, then answers."""
    left = iter(errors)

    def fn(x):
        asked.append(x.copy())
        x[:] = np.nan  # the victim's own, to scribble on
        if (error := next(left, None)) is not None:
            raise error
        return truth()(asked[-1]), truth().gradient(asked[-1])

    return oracles.from_host(fn)


X = np.random.default_rng(0).normal(size=(3, DIM))


def test_errors_that_pass_are_waited_out_longer_and_longer(clock):
    asked = []
    errors = [TimeoutError(), ConnectionResetError(), TimeoutError()]
    oracle = service.patient(failing(errors, asked), wait=2.0)
    assert np.array_equal(oracle(X).value, truth()(X))
    assert len(asked) == 4
    assert all(np.array_equal(x, X) for x in asked)
    for waited, least in zip(clock, (2, 4, 8), strict=True):
        assert least <= waited <= least + 1


def test_the_last_error_is_raised_and_others_go_through_at_once(clock):
    asked = []
    errors = [TimeoutError(word) for word in ("first", "second", "third", "fourth")]
    with pytest.raises(TimeoutError, match="fourth"):
        service.patient(failing(errors, asked), attempts=4)(X)
    assert len(asked) == 4
    with pytest.raises(PermissionError, match="no such key"):
        service.patient(failing([PermissionError("no such key")], asked))(X)
    assert len(asked) == 5
    busy = [RuntimeError("503"), RuntimeError("429"), RuntimeError("401")]
    oracle = service.patient(failing(busy, asked), passing=lambda e: str(e) in ("429", "503"))
    with pytest.raises(RuntimeError, match="401"):
        oracle(X)
    assert len(asked) == 8


def test_calls_keep_to_a_rate_together_and_attempts_count(clock):
    starts = []

    def note(answer):
        starts.append(time.monotonic())
        if len(starts) == 2:
            raise TimeoutError
        return answer

    host = oracles.from_host(
        lambda x: note((truth()(x), truth().gradient(x))), lambda x: note(truth()(x))
    )
    oracle = service.patient(host, per_second=0.5, wait=0.25)
    for _ in range(2):
        oracle(X)
        oracle.value(X)
    assert len(starts) == 5
    np.testing.assert_allclose(np.diff(starts), 2.0)


def test_a_tenth_of_the_calls_fails_and_the_attack_ends_the_same(clock, tmp_path):
    errors = [ConnectionError() if call % 10 == 3 else None for call in range(1000)]
    asked = []
    flaky = service.patient(failing(errors, asked))
    attack = {"dim": DIM, "key": 3, "width": WIDTH}
    oracle = kept(flaky, tmp_path / "replies")
    r, plain = exact.recover(oracle, **attack), exact.recover(failing([], []), **attack)
    assert len(clock) > 0
    assert len(asked) == plain.cost.rounds + len(clock)
    assert r.cost == plain.cost
    assert oracle.tally == (r.cost.queries, r.cost.queries)
    for mine, theirs in zip(vars(r.network).values(), vars(plain.network).values(), strict=True):
        assert np.array_equal(mine, theirs)


def test_patience_needs_its_library_and_sensible_numbers(monkeypatch):
    oracle = failing([], [])
    for words, message in (
        ({"attempts": 0}, "attempts must be a whole number of at least 1, not 0"),
        ({"wait": -1}, "wait -1 and per_second None must be positive"),
        ({"per_second": 0}, "per_second 0 must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            service.patient(oracle, **words)
    monkeypatch.setitem(sys.modules, "tenacity", None)
    with pytest.raises(ImportError, match=r"pip install 'recon\[service\]'"):
        service.patient(oracle)
