"""Recovery of two-layer ReLU networks from gradient queries: f(x) = W max(Ax + b, 0) + c.

`lines` finds the kinks along one random line, `units` reads the network off them, and
`certify` holds it against the victim on fresh queries; this module runs the three, for one
or many outputs, with biases or without, whatever the rows, the width known or not.
Where the certificate fails, the same line is searched again more carefully (`bracket`),
then a second line; a network that no certificate vouches for is never `ok`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from recon import probe
from recon.exact import arrays, certify, deep, lines, rounds, units
from recon.exact.asking import Spent
from recon.exact.inputs import Inputs, of_ends, of_gradients
from recon.exact.lines import Settings, State
from recon.exact.recovery import COARSE, TOO_COARSE, Recovery, Status, promise
from recon.exact.refit import refit
from recon.networks import TwoLayer
from recon.oracles import CHUNK, AnyOracle, Cost, Oracle, Reply, ReplyError, check

DEEP = 1024  # kinks up to which a victim that has no two layers is taken for a deeper one
DEEPER = 1e-6  # of the largest gradient: a value that two layers do not meet
DEPENDENT = 1e-12  # smallest eigenvalue of the rows' Gram matrix
BENT = 2  # touches that explain nothing, after which kinks are not taken for hyperplanes
CROWD, UNLIKE = 1 << 12, 0.1  # units of which a tenth of a value tells that they are none
ON_LINE = 3  # gradients of a line that say something of their own: in the middle, and far out
LINES = 2  # fresh lines before giving up; a kink beyond the ends of a line is rare
MOST = 1 << 15  # points on a line at most
MEMORY = 8 << 30  # bytes of replies kept at most
ILL_CONDITIONED = (
    " All deviations are of the size of rounding, but too large beside f itself: terms cancel, or "
    "are larger elsewhere. Ask the model in float64."
)


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def _search(s: Settings, oracle: Oracle, state: State) -> State:
    return rounds.in_jax(s, oracle, state)


def search(
    s: Settings,
    oracle: AnyOracle,
    state: State,
    failed: int | None = None,
    points: int = MOST,
) -> tuple[Settings, State]:
    """Run the rounds to their end by the driver that fits the oracle, growing the arrays.

    failed: on the host, stop once so many touches explained nothing; points: the most on a line,
    where the width is not told.

    Ends lines.FULL where the victim is plainly of another kind, or takes far too many points.
    """
    told = int(state.width)
    most = points if told < 0 else min(MOST, max(4096, 16 * told))
    while True:
        if oracle.traced and jax.default_backend() != "cpu":
            state = jax.tree.map(np.asarray, _search(s, oracle, state))
        else:  # on a CPU a compile of seconds would save milliseconds
            state = rounds.in_numpy(s, partial(oracle.stream, shapes=shapes(s)), state, failed)
        bytes_grown = 2 * s.capacity * 8 * s.outputs * s.dim
        if int(state.phase) != lines.FULL or 2 * s.capacity > most or bytes_grown > MEMORY:
            return s, state
        if rounds.unlike(s, state):
            return s, state
        s, state = rounds.twice(s), rounds.grow(s, state)


def bytes_needed(s: Settings) -> int:
    """Bytes of a search that fills its capacity, the chunk under way and copies included."""
    numbers = s.capacity * s.dim * (s.outputs + (s.outputs > 1)) + 4 * s.chunk * s.dim * s.outputs
    return 8 * (numbers + s.groups * s.group * (s.group + s.dim))


def room(width: int | None) -> int:
    """Points on a line to begin with, for so many units."""
    return 256 if width is None else -(-int(1.7 * width + 64) // 128) * 128


def check_memory(s: Settings) -> None:
    """ValueError if the replies of a search do not fit."""
    if (needed := bytes_needed(s)) > MEMORY:
        raise ValueError(
            f"replies of {s.outputs} outputs and {s.dim} inputs need {needed / 2**30:.0f} GiB of "
            f"memory, more than the {MEMORY >> 30} GiB an attack may take"
        )


def shapes(s: Settings) -> tuple[int, ...]:
    """How many rows the victim is asked at once, where it is traced.

    A large one reads its weights for every part, which takes as long as some 30 rows: many rows
    at once then save more than a compile for each shape takes.
    """
    most = lines.most_rows(s.outputs, s.dim)
    sizes = (4 * CHUNK, CHUNK, CHUNK // 4) if s.large else (CHUNK,)
    return tuple(min(size, most) for size in sizes)


def ask(oracle: AnyOracle, x: np.ndarray, shapes: Sequence[int] = (CHUNK,)) -> Reply:
    """Checked replies to x [n, d] as NumPy arrays in float64; raises ReplyError."""
    return check(unchecked(oracle, x, shapes), *x.shape)


def unchecked(oracle: AnyOracle, x: np.ndarray, shapes: Sequence[int] = (CHUNK,)) -> Reply:
    """The same, which need not be finite: a service's own reply is, where it is on the host."""
    parts = zip(*oracle.stream(x, shapes), strict=True)
    return Reply(*(np.concatenate(a) for a in parts))


class Victim(NamedTuple):
    """What is to be recovered: the oracle of logits, its form, and the user's inputs.

    dtype: of the queries; eps, replied: rounding units of the logits and of the replies, of
    which `ok` promises half of the digits; cost: spent already; inputs: their scales, if known;
    z [n, d]: the user's own, scaled; seen: points [m, d] and the replies there, of which the search
    makes no use; floor: rounding of the values, however small these are.
    """

    oracle: Any
    dim: int
    outputs: int
    dtype: str
    eps: float
    replied: float
    cost: Cost
    inputs: Inputs | None
    z: np.ndarray | None
    seen: tuple[np.ndarray, Reply] | None
    floor: float = 0.0

    def fresh(self, inputs: Inputs | None) -> tuple[np.ndarray, Reply] | None:
        """What was `seen`, for these inputs."""
        if self.seen is None or inputs is None:
            return self.seen
        x, (value, gradient) = self.seen
        return inputs.seen(x), Reply(value, gradient * inputs.scale[None, None])


class _Task(NamedTuple):
    """What every line of an attack shares: the victim as a function of z, and what is known."""

    oracle: AnyOracle
    s: Settings
    width: int | None
    limit: int
    promise: float
    floor: float  # rounding of values that are made of probabilities
    places: list[certify.Place]  # of the user's, to certify
    fresh: tuple[np.ndarray, Reply] | None  # points and replies there, for the certificate
    share: float | None  # of inputs that a deeper network may be wrong on; None: it has two layers
    told: list[str]  # why no deeper network was found
    missed: list[tuple[certify.Points, Reply]]  # what certificates asked that did not hold
    unit: np.ndarray | None  # [d] what one of the caller's units is here, where it is not one


def recover(
    victim: Victim, seed: np.ndarray, width: int | None, limit: int, share: float | None = None
) -> Recovery:
    """The network behind logits and Jacobians that may be asked for anywhere: `exact.recover`.

    share: where the first line shows no two-layer network, look for a deeper one, which may be
    wrong on that share of inputs (`deep`).
    """
    oracle, dim, outputs, dtype, eps, replied, cost, inputs, z, *_ = victim
    capacity, left = room(width), LINES
    outcome, told = Recovery(None, Status.BUDGET, cost), list[str]()
    missed: list[tuple[certify.Points, Reply]] = []
    share = None if dim == 1 else share
    while left:
        blur = 1.0 if inputs is None else inputs.blur
        s = Settings(dim, outputs, capacity, dtype, eps * blur)
        view = oracle if inputs is None else oracle.scaled(inputs.shift, inputs.scale, dtype)
        seed, line_seed, place_seed = arrays.split(seed, 3)
        places = [] if z is None else [certify.Place(z, certify.ROWS, certify.BETWEEN)]
        if inputs is not None:
            places += certify.of_the_user(np.random.default_rng(place_seed), dim, inputs.seen)
        unit = None if inputs is None else 1 / inputs.scale
        fresh = victim.fresh(inputs)
        more = share, told, missed, unit
        task = _Task(view, s, width, limit, promise(replied), victim.floor, places, fresh, *more)
        outcome, other = _one_line(task, line_seed, outcome.cost, watch=inputs is None)
        if inputs is not None and z is None and isinstance(outcome.network, TwoLayer):
            outcome = replace(outcome, fresh=min(outcome.fresh, certify.PLAIN))
        if outcome.ok or outcome.status is Status.BUDGET:
            break
        if other is not None:
            inputs, missed = other, []
            continue  # not counted as a line
        if outcome.status is not Status.UNCERTIFIED or (told and outcome.network is None):
            break
        left, share = left - 1, None  # a deeper one was looked for
    if told and outcome.status is Status.UNCERTIFIED:
        outcome = replace(outcome, detail=f"{outcome.detail} {' '.join(told)}")
    if inputs is not None and outcome.network is not None:
        outcome = replace(outcome, network=inputs.restored(outcome.network))
    return outcome


def _one_line(
    task: _Task, seed: np.ndarray, before: Cost, watch: bool
) -> tuple[Recovery, Inputs | None]:
    """The outcome of one line, and other scales of the inputs that it tells of; `before` was spent
    already.

    watch: look for such scales, and end after the search where there are any.
    """
    oracle, s, width, limit = task[:4]
    begin_seed, *check_seeds = arrays.split(seed, 3)
    told = -1 if width is None else width
    state = lines.begin(s, begin_seed, told, limit - before.queries)
    outcome, other = Recovery(None, Status.BUDGET, before), None
    if blind := task.fresh is not None and not task.fresh[1].gradient.any():
        task = task._replace(share=None)  # nothing was seen yet, nor of how many digits
    for check_seed in check_seeds:
        doubt = BENT if task.share is not None and s.touches else None
        s, state = search(s, oracle, state, doubt)
        if doubt is not None and int(state.phase) == lines.RUNNING:
            now = before + asked(s, int(state.queries), int(state.rounds))
            task, deeper, spent = _deeper(task, s, state, now, check_seed)
            if deeper is not None:
                return deeper, None
            before = before + spent
            s, state = search(s, oracle, state)
        cost = before + asked(s, int(state.queries), int(state.rounds))
        if int(state.phase) == lines.FAULT:
            row = f"query row {int(state.fault)} of {int(state.queries)}"
            raise ReplyError(f"{row} on the line: the reply is not finite")
        network, error = units.read_off(s, state)
        count = network.width
        if watch:
            reach = s.reach * float(np.linalg.norm(state.v))
            seen = state.gradient[: int(state.filled)]
            other = of_gradients(seen, ON_LINE) or of_ends(network, reach)
        found = f"Units found: {count}."
        if blind and probe.digits(_seen(state)) > COARSE:
            return Recovery(None, Status.UNCERTIFIED, cost, detail=TOO_COARSE), None
        if int(state.phase) != lines.DONE:
            status = Status.BUDGET if int(state.phase) == lines.SPENT else Status.NOISY
            detail = found if status is Status.BUDGET else f"Kinks seen: {count}.{_hint(state)}"
            return Recovery(network, status, cost, detail=detail), other
        if other is not None:
            return Recovery(network, Status.UNCERTIFIED, cost, detail=found), other
        far_seed, place_seed, point_seed = arrays.split(check_seed, 3)
        if task.share is not None and _dependent(network.rows) and cost.queries < limit:
            # rows that depend on each other: of more units than inputs, or of several layers
            x = np.random.default_rng(place_seed).standard_normal((1, s.dim)).astype(s.dtype)
            before, cost = before + asked(s, 1), cost + asked(s, 1)
            off = np.abs(network(x.astype(float)) - ask(oracle, x, shapes(s)).value).max()
            if off > DEEPER * float(state.scale) * float(np.linalg.norm(x)):
                task, deeper, spent = _deeper(task, s, state, cost, far_seed)
                if deeper is not None:
                    return deeper, None
                before, cost = before + spent, cost + spent
        far, x = units.far_points(s, state, network, error, far_seed)
        if 0 < len(far) <= limit - cost.queries:
            x = x.astype(s.dtype)
            network = units.sharpen(network, far, x.astype(float), ask(oracle, x, shapes(s)).value)
            before, cost = before + asked(s, len(x)), cost + asked(s, len(x))
        if task.missed and s.eps > certify.ROUNDED and count:
            first, *later = task.missed
            for pair in later:
                first = certify.joined(*first, *pair)
            network = refit(network, first[0].x, first[1], float(state.scale), s.eps)
        expected = width is None or width == count
        line = certify.Line(state.u, state.v, s.reach, float(state.scale))
        earlier = 0 if task.fresh is None else len(task.fresh[0])
        if count > CROWD and task.fresh is not None:  # before as many queries again, in vain
            off = certify.rms(network(task.fresh[0]) - task.fresh[1].value)
            if off > UNLIKE * certify.rms(task.fresh[1].value):
                return Recovery(network, Status.NOISY, cost, detail=f"Kinks seen: {count}."), None
        many = certify.how_many(count, width, s.eps) - earlier
        places = certify.normal_places(place_seed, s.dim, many) + task.places
        places += certify.idle(np.random.default_rng(place_seed), network)
        points = certify.points(point_seed, network, line, s.eps, places)
        x = points.x.astype(s.dtype)
        if cost.queries + len(x) > limit:
            detail = f"{found} The certificate needs {len(x)} queries more."
            return Recovery(network, Status.BUDGET, cost, detail=detail), other
        reply, points = ask(oracle, x, shapes(s)), points._replace(x=x.astype(float))
        before, cost = before + asked(s, len(x)), cost + asked(s, len(x))
        points, reply = certify.more(points, reply, task.fresh)
        fresh, new = int(np.sum(points.place == 0)), (points, reply)
        for old, replies in task.missed:
            old = old._replace(place=np.minimum(old.place, len(places) - 1))
            points, reply = certify.joined(points, reply, old, replies)
        verdict = certify.judge(network, points, *reply, line.scale, s.eps, places, task.floor)
        detail = "" if expected else found
        if verdict.rounding <= 1 and verdict.error <= task.promise / certify.SAFETY:
            status = Status.RECOVERED if expected else Status.OTHER_WIDTH
            return Recovery(network, status, cost, verdict.error, detail, fresh), None
        task.missed.append(new)
        if task.share is not None and count <= DEEP:
            task, deeper, spent = _deeper(task, s, state, cost, far_seed)
            if deeper is not None:
                return deeper, None
            before, cost = before + spent, cost + spent
        detail = found + (_hint(state) if verdict.rounding > 1 else ILL_CONDITIONED)
        outcome = Recovery(network, Status.UNCERTIFIED, cost, verdict.error, detail)
        state = rounds.bracket(s, state, limit - before.queries)
    return outcome, None


def _dependent(rows: np.ndarray) -> bool:
    """Whether unit rows [h, d] depend on each other."""
    if not 0 < len(rows) <= DEEP:
        return False
    return len(rows) > rows.shape[1] or bool(np.linalg.eigvalsh(rows @ rows.T)[0] < DEPENDENT)


def _deeper(
    task: _Task, s: Settings, state: State, before: Cost, seed: Any
) -> tuple[_Task, Recovery | None, Cost]:
    """A deeper network behind the same line, or that the budget is spent; None where there is none
    to be found, and the task without it.  With what looking for it took.
    """
    spent = Cost()

    def more(x: np.ndarray) -> Reply:
        nonlocal spent
        if before.queries + spent.queries + len(x) > task.limit:
            raise Spent
        spent = spent + asked(s, len(x))
        return ask(task.oracle, x.astype(s.dtype), shapes(s))

    u, v = (np.asarray(a, float) for a in (state.u, state.v))
    line = deep.Asked(u, v, np.tan(state.angle[: int(state.filled)]), _seen(state))
    rng = np.random.default_rng(seed)
    drawn = [certify.drawn(rng, place) for place in task.places if place.between]
    unit = None if drawn else task.unit
    others = np.concatenate([np.zeros((0, s.dim)), *drawn])
    try:
        found = deep.recover(more, s.dim, seed, s.eps, task.share or deep.SHARE, line, others, unit)
    except Spent:
        return task, Recovery(None, Status.BUDGET, before + spent), spent
    if found.network is None or found.deviation > task.promise / certify.SAFETY:
        why = found.why or f"Fresh values are off by {found.deviation:.0e} of their size."
        task.told.append(f"As a deeper network: {why}")
        if found.several:  # no line shows it as one of two layers
            return task, Recovery(None, Status.UNCERTIFIED, before + spent), spent
        return task._replace(share=None), None, spent
    expected = task.width is None or task.width == found.network.width
    status = Status.RECOVERED if expected else Status.OTHER_WIDTH
    detail = f"Hidden layers of {', '.join(map(str, found.network.widths))} units."
    cost = before + spent
    return task, Recovery(found.network, status, cost, found.deviation, detail, found.fresh), spent


def _seen(state: State) -> Reply:
    """The replies on the line."""
    n = int(state.filled)
    t = np.tan(state.angle[:n])[:, None]
    value = state.along[:n, :, 0] + t * state.along[:n, :, 1] + state.offset[:n]
    return Reply(value, np.asarray(state.gradient[:n]))


def _hint(state: State) -> str:
    """What the replies look like: values that sum to one, or constant at both ends of the line."""
    n, value = int(state.filled), _seen(state).value
    if value.shape[1] > 1 and np.abs(value.sum(1) - 1).max(initial=0.0) < 1e-3:
        return " The values sum to one, as probabilities do: ask for logits."
    ends = state.gradient[[np.argmin(state.angle[:n]), np.argmax(state.angle[:n])]]
    if ends.any() or not state.gradient[:n].any():
        return ""
    return (
        " Far from the origin the gradients vanish: the victim may clip its inputs to a range, or "
        "saturate, as sigmoids do."
    )


def too_coarse(oracle: AnyOracle, at: np.ndarray, dtype: str, replies: str, cost: Cost) -> Recovery:
    """Refusal of half precision, with the tangent at a point [1, d] for a network."""
    dim = at.shape[1]
    value, gradient = (a[0] for a in ask(oracle, at.astype(dtype)))
    value = value - gradient @ at[0]
    none = np.zeros((0, dim))
    tangent = TwoLayer(none, none[:, 0], np.zeros((len(value), 0)), gradient, value)
    detail = f"Asked in {dtype}, answered in {replies}. {TOO_COARSE}"
    cost = cost + Cost(1, 0, gradient.size + len(value), 1)
    return Recovery(tangent, Status.UNCERTIFIED, cost, detail=detail)


def asked(s: Settings, queries: int, rounds: int = 1) -> Cost:
    """The cost of so many queries."""
    return Cost(queries, 0, queries * s.outputs * (s.dim + 1), rounds)
