"""Kill -9 at any moment: what was answered is in the ledger, and the attack ends the same."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from attacked import ATTACKS, answered, logged, run


class Campaign(NamedTuple):
    """kills survived; queries of all attacks; those asked again, in flight at a kill."""

    kills: int
    queries: int
    twice: int


def campaign(name, folder, kills, random, plain, most):
    """Kill an attack `kills` times at random moments of its `most` seconds, or until it is done."""
    folder.mkdir()
    path = folder / "replies.ledger"
    before, seen, done, killed = {}, 0, False, 0
    while not done:
        now = random.uniform(0, most) if killed < kills else None
        was_killed, _ = run(name, folder, path, now)
        killed, done = killed + was_killed, (folder / "result.npz").exists()
        asked, (after, sent) = logged(folder), answered(path)
        assert not {*asked[seen:]} & before.keys()  # nothing that was answered is asked again
        assert before.items() <= after.items()  # nothing that was answered is lost or changed
        assert len(asked) <= sent  # every query is on disk before it is asked
        before, seen = after, len(asked)
    with np.load(folder / "result.npz") as mine, np.load(plain / "result.npz") as theirs:
        assert {*mine} == {*theirs}
        assert all(mine[a].tobytes() == theirs[a].tobytes() for a in theirs)
    assert {*logged(folder)} == {*logged(plain)} == before.keys()
    twice = sum(Counter(logged(folder)).values()) - len(before)
    return Campaign(killed, len(before), twice)


def campaigns(name, tmp_path, kills):
    random = np.random.default_rng()
    plain = tmp_path / "plain"
    plain.mkdir()
    run(name, plain)
    (tmp_path / "whole").mkdir()
    _, most = run(name, tmp_path / "whole", tmp_path / "whole" / "replies.ledger")
    found = []
    while (left := kills - sum(a.kills for a in found)) > 0:
        folder = tmp_path / f"campaign {len(found)}"
        found.append(campaign(name, folder, min(left, 10), random, plain, most))
    return Campaign(*map(sum, zip(*found, strict=True)))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_killed_at_random_moments_ends_the_same(name, tmp_path):
    assert campaigns(name, tmp_path, 4).kills >= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_two_hundred_kills(name, tmp_path):
    total = campaigns(name, tmp_path, 100)
    print(f"\n{name}: {total.kills} kills, {total.queries} queries, {total.twice} in flight")
    assert total.kills >= 100


def test_an_attack_killed_while_the_service_hangs_goes_on(tmp_path):
    path = tmp_path / "replies.ledger"
    killed, _ = run("exact", tmp_path, path, 0.1, pause=3600)
    assert killed
    known, sent = answered(path)
    assert not known
    assert 0 < len(logged(tmp_path)) == sent  # the ledger says what was in flight
    run("exact", tmp_path, path)
    assert (tmp_path / "result.npz").exists()
