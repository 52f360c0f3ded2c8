"""Ledgers that are refused: of other victims, damaged, in use, on a full disk, read-only."""

import os
import resource
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pytest
from attacked import DIM, Service, answered, kept, processes, truth

from recon import oracles, paths, service
from recon.book import MARK
from recon.ledger import LedgerError
from recon.networks import TwoLayer
from recon.oracles import ReplyError, View


@pytest.fixture
def path(tmp_path):
    return tmp_path / "replies.ledger"


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(5, DIM))


def refused(path, message, oracle=None, **words):
    """That the ledger is refused with a sentence, and the file left as it was."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(LedgerError, match=message) as error:
        kept(Service().oracle if oracle is None else oracle, path, **words)
    assert str(path) in str(error.value)
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.fixture
def whole(path, x):
    kept(Service().oracle, path)(x)
    assert os.listdir(path.parent) == [path.name]  # at rest a ledger is one file
    return path


def test_another_victims_ledger_is_refused(whole, x):
    refused(whole, "another victim: its service is '.*', not 'model 2'", service="model 2")
    other = oracles.from_host(Service().reply, view=View("values"))
    refused(whole, "another victim: its view is 'logits, .*', not 'values, ", other)
    told = {
        str(View(explanation="integrated_gradients", path=paths.Path(baseline=baseline)))
        for baseline in (0.0, 0.5, [0.5] * DIM, [0.5] * (DIM - 1) + [0.5 + 1e-12])
    }
    assert len(told) == 4  # a ledger of another baseline is another's
    refused(whole, "its parameters", oracles.from_jax(TwoLayer.__call__, truth()))
    fewer = kept(oracles.from_host(lambda x: (x, x)), whole)
    with pytest.raises(LedgerError, match="another victim, of 10 inputs, not 4"):
        fewer(x[:, :4])
    for fn, message in (
        (lambda x: (x[:, :2], np.zeros((len(x), 2, DIM))), "answers float64 2 for .* float64 3"),
        (lambda x: map(np.float32, (truth()(x), truth().gradient(x))), "answers float32 3"),
    ):
        changed = kept(oracles.from_host(lambda x, fn=fn: tuple(fn(x))), whole)
        with pytest.raises(ReplyError, match=message):
            changed(x + 1)
    assert fewer.tally.answered == 5


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_refused(part, whole):
    data = whole.read_bytes()
    whole.write_bytes(data[: int(part * len(data))])
    refused(whole, "is not a ledger, or a damaged one; it was left as it is")


def test_what_is_no_ledger_is_refused(whole, tmp_path):
    data = whole.read_bytes()
    for bad in (b"x", b"PK\3\4" + bytes(5000), data[:4096] + bytes(4096) + data[8192:]):
        whole.write_bytes(bad)
        refused(whole, "is not a ledger, or a damaged one")
    other = tmp_path / "other"
    for mark, version, message in ((0, 0, "is not a ledger"), (MARK, 2, "of format 2")):
        db = sqlite3.connect(other)
        db.executescript(f"PRAGMA application_id = {mark}; PRAGMA user_version = {version};")
        db.close()
        refused(other, message)
    refused(tmp_path, "is not a file")
    refused(whole / "under", "cannot be made: ")
    with pytest.raises(LedgerError, match="cannot be made: File name too long"):
        kept(Service().oracle, tmp_path / ("long" * 100))


def test_a_journal_without_its_ledger_is_not_applied_to_a_new_one(path):
    path.with_name(f"{path.name}-journal").write_bytes(b"\xd9\xd5\x05\xf9" * 200)
    with pytest.raises(LedgerError, match="-journal lies there without its ledger"):
        kept(Service().oracle, path)
    assert not path.exists()


def test_a_ledger_that_is_moved_or_gone_in_use_takes_no_more(whole, x, monkeypatch):
    victim = Service()
    oracle = kept(victim.oracle, whole)
    assert kept(victim.oracle, whole).book is oracle.book  # in one process it is shared
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)  # after a fork
        with pytest.raises(LedgerError, match="open the ledger anew"):
            oracle(x + 1)
    whole.rename(whole.with_suffix(".old"))
    with pytest.raises(LedgerError, match="was moved or removed"):
        oracle(x + 1)
    assert not victim.calls
    assert kept(victim.oracle, whole).tally == (0, 0)
    del oracle
    assert kept(victim.oracle, whole.with_suffix(".old")).tally == (5, 5)


def elsewhere(task, *args):
    """What a function of this module says in another process."""
    ours, theirs = processes.Pipe()
    process = processes.Process(target=task, args=(theirs, *args))
    process.start()
    assert ours.poll(60)
    said = ours.recv()
    process.join()
    return said


def try_to_open(pipe, path):
    try:
        pipe.send(kept(Service().oracle, path).tally)
    except LedgerError as error:
        pipe.send(str(error))


def test_a_ledger_in_use_by_another_process_is_refused(whole):
    oracle = kept(Service().oracle, whole)
    assert "is in use by another process" in elsewhere(try_to_open, whole)
    del oracle
    assert elsewhere(try_to_open, whole) == (5, 5)


def fill_up(pipe, path, x):
    oracle = kept(Service().oracle, path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5000,) * 2)
    try:
        oracle(np.concatenate([x + i for i in range(100)]))
    except LedgerError as error:
        pipe.send(str(error))


def test_a_disk_that_takes_no_more_stops_an_attack_and_harms_nothing(whole, x):
    known, _ = answered(whole)
    assert "cannot be read or written, a full disk perhaps" in elsewhere(fill_up, whole, x)
    assert answered(whole)[0] == known


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_full_disk_stops_an_attack_and_harms_nothing(when, whole, x):
    def full(*reply):
        (pages,) = oracle.book.db.execute("PRAGMA page_count").fetchone()
        oracle.book.db.execute(f"PRAGMA max_page_count = {pages}")
        return reply[-1]

    victim = Service(full if when == "while" else lambda call, x, reply: reply)
    oracle = kept(victim.oracle, whole)
    if when == "before":
        full(None)
    many = np.concatenate([x + i for i in range(1, 101)])
    with pytest.raises(LedgerError, match="the disk is full; what it held is unharmed") as error:
        oracle(many)
    assert len(victim.calls) == (when == "while")
    assert getattr(error.value, "__notes__", []) == (
        ["500 replies that had come are lost: ask them again."] if when == "while" else []
    )
    assert oracle.tally == (5 + 500 * (when == "while"), 5)
    oracle.book.db.execute("PRAGMA max_page_count = 100000")  # room again
    victim.fault = lambda call, x, reply: reply
    np.testing.assert_allclose(oracle(many).value, truth()(many))
    assert oracle.tally.answered == 505


def test_a_folder_that_cannot_be_written_is_named(x):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "old.ledger"
        kept(Service().oracle, path)(x)
        os.chmod(path, 0o444)
        os.chmod(folder, 0o555)
        root = os.geteuid() == 0  # to whom nothing is forbidden
        try:
            if root:
                os.seteuid(65534)
            refused(Path(folder) / "new.ledger", "cannot be made: Permission denied")
            refused(path, "cannot be (written|opened)")
        finally:
            if root:
                os.seteuid(0)
            os.chmod(folder, 0o755)
        assert kept(Service().oracle, path).tally == (5, 5)


def test_arguments_that_make_no_sense(path):
    oracle = Service().oracle
    for words, message in (
        ({"service": " "}, "service must say which victim"),
        ({"budget": -1}, "budget must be a whole number of at least 0, not -1"),
        ({"most_rows": 0}, "most_rows must be a whole number of at least 1, not 0"),
    ):
        with pytest.raises(ValueError, match=message):
            kept(oracle, path, **words)
    assert not path.exists()
    with pytest.raises(ValueError, match=r"is kept in .* already"):
        kept(kept(oracle, path), path)
    with pytest.raises(ValueError, match="a ledger goes around it"):
        service.patient(kept(oracle, path))
    with pytest.raises(TypeError, match="not as a bare function"):
        kept(lambda x: x, path)
