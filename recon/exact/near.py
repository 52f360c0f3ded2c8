"""Recovery where queries must stay near: behind a softmax that saturates, or inside a box.

A line then ends before it has met all kinks.  So what the network found does not explain is
searched along further lines, on the victim less the network, where only the missing kinks are
left: through a point where the certificate failed and one where it held, as a missing unit
switches between them.  No point lies so far out that every unit is on at one of two, so kinks are
not touched (`lines.Settings.touches`).  With three outputs or more an interval holds one kink if
its jump has rank one and all tangents meet in one point; with fewer, kinks are bracketed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from recon.exact import certify, lines, units
from recon.exact.certify import Place, Points
from recon.exact.derived import less
from recon.exact.inputs import Inputs, of_units
from recon.exact.lines import Settings
from recon.exact.recovery import Recovery, Status, promise, repeated, single
from recon.exact.regions import HALF, SEEN, USUAL, Anywhere, Box, Ends, Softmax, slid, spread
from recon.exact.two_layer import Victim, ask, asked, room, search, shapes, unchecked
from recon.networks import TwoLayer
from recon.oracles import Cost, Reply, ReplyError

FARTHEST = 1e4  # of a line's ends, in t; or as far as half of the digits reach
BESIDE = 1e-6  # of a point's length
LEAST, HIDDEN = 4, 0.9  # fresh points that must show something; share of usual ones that need not
UNSEEN = "By it the probabilities are those of one class alone at nearly all fresh points."
ALONE = "By it the probabilities are those of one class alone at nearly all usual inputs."
FAINT = "Its logits are so small that rounding of the probabilities hides them."
POINTS = 4096  # of a line, at most: more are of rounding, where a probability is nearly one
DIGIT = 4.0  # roundings of 1 - p
NOISE = 64  # units of a line, of which half are smaller than a jump that rounding explains
BETWEEN = 16  # places between units of such a line, where most gradients are other than expected
SHRINK, ENDS = 1.6, 8  # of a line whose ends show no numbers, and how often it is shortened


class Known(NamedTuple):
    """What is known so far: a network, the largest gradient and value seen; of certificates that
    failed points [n, d] and their gradients [n, K, d], and how many these were.
    """

    network: TwoLayer
    scale: float = 0.0
    size: float = 0.0
    x: np.ndarray | None = None
    gradient: np.ndarray | None = None
    failed: int = 0

    def two(self, eps: float) -> np.ndarray | None:
        """Two points [2, d], of which the network explains one alone: a unit is missing between.

        Those where logits part least; none beside a plane, where a line would be too short.
        """
        if self.x is None or self.gradient is None:
            return None
        far = np.maximum(np.linalg.norm(self.x, axis=1), self.x.shape[1] ** 0.5)
        level = np.abs(self.x @ self.network.rows.T + self.network.bias[None])
        clear = (level > BESIDE * far[:, None]).all(1)
        x, gradient = self.x[clear], self.gradient[clear]
        wrong = _off(self.network, x, gradient, eps, self.scale)
        apart = spread(self.network(x))
        if not wrong.any() or wrong.all():
            return None
        ends = (np.where(side, apart, np.inf).argmin() for side in (~wrong, wrong))
        return x[list(ends)]

    def refutes(self, eps: float) -> bool:
        """Whether a reply that refuted a network refutes this one too, if it has the digits."""
        if self.x is None or self.gradient is None or eps > certify.ROUNDED:
            return False
        return bool(_off(self.network, self.x, self.gradient, eps, self.scale).any())


class Task(NamedTuple):
    """An attack: the victim as a function of z, where to ask, and what to stop at.

    replied: rounding unit of the replies, from which logits are made.
    """

    oracle: Any
    s: Settings
    region: Softmax | Box | Anywhere
    width: int | None
    budget: int
    replied: float
    places: list[Place]  # of the user's, to certify
    start: tuple[np.ndarray, Reply] | None  # the first is a point of the first line
    floor: float = 0.0  # rounding of values that are made of probabilities


def recover(
    victim: Victim, region: Softmax | Box, seed: np.ndarray, width: int | None, most: int
) -> Recovery:
    """The network, from lines until a certificate holds.

    Where the user tells nothing of the inputs, the units of the first line may tell of other
    scales than were guessed: then it begins anew in these.
    """
    dim, z, cost = victim.dim, victim.z, victim.cost
    told, inputs = z is not None or isinstance(region, Box), victim.inputs
    while True:
        oracle, eps = victim.oracle, victim.eps
        places = [] if z is None else [Place(z, certify.ROWS, region.between)]
        if inputs is not None:
            oracle = oracle.scaled(inputs.shift, inputs.scale, victim.dtype)
            eps = eps * inputs.blur
            if isinstance(region, Softmax):
                places += certify.of_the_user(np.random.default_rng(seed), dim, inputs.seen)
        s = Settings(dim, victim.outputs, room(width), victim.dtype, eps)
        fresh = victim.fresh(inputs)
        task = Task(oracle, s, region, width, most, victim.replied, places, fresh, victim.floor)
        got, scale = _recover(task, seed, cost, watch=not told)
        if scale is None:
            break
        shift, before = (0.0, 1.0) if inputs is None else (inputs.shift, inputs.scale)
        told, cost = True, got.cost
        inputs = Inputs(np.zeros(dim) + shift, before * scale)
    if inputs is not None and got.network is not None:
        got = replace(got, network=inputs.restored(got.network))
    if inputs is not None and z is None and isinstance(region, Softmax):
        got = replace(got, fresh=min(got.fresh, certify.PLAIN))
    return got


def _recover(
    task: Task, seed: np.ndarray, cost: Cost, watch: bool
) -> tuple[Recovery, np.ndarray | None]:
    """The outcome; or scales [d] of the inputs that the first line tells of, if one is to `watch`
    for these.
    """
    rng = np.random.default_rng(seed)
    d, k = task.s.dim, task.s.outputs
    none = np.zeros((0, d))
    known = Known(TwoLayer(none, none[:, 0], np.zeros((k, 0)), np.zeros((k, d)), np.zeros(k)))
    outcome = Recovery(None, Status.BUDGET, cost)
    assert not isinstance(task.region, Anywhere)  # which has certificates, but no lines
    for left in reversed(range(task.region.lines)):
        try:
            known, found, cost = _line(task, rng, known, cost)
        except _Ended as ended:
            detail = f"Units found: {known.network.width}."
            return Recovery(known.network, ended.status, ended.cost, detail=detail), None
        if watch and (scale := of_units(known.network)) is not None:
            return replace(outcome, cost=cost), scale
        watch = False
        more = isinstance(task.region, Box) and found > 0
        more = more or known.network.width < (task.width or 0)
        if left and (more or known.two(task.s.eps) is not None):
            continue  # a line that meets no new unit is cheaper than a certificate
        outcome, known = certified(task, rng, known, cost)
        if outcome.ok or outcome.status is Status.BUDGET or outcome.detail.endswith((FAINT, ALONE)):
            break
        cost = outcome.cost
    return outcome, None


class _Ended(Exception):
    def __init__(self, status: Status, cost: Cost) -> None:
        self.status, self.cost = status, cost


def _line(
    task: Task, rng: np.random.Generator, known: Known, cost: Cost
) -> tuple[Known, int, Cost]:
    """What is known after one more line, how many kinks it met, and the cost."""
    seed = rng.integers(1 << 32, size=2)
    assert not isinstance(task.region, Anywhere)
    ends = task.region.line(rng, task.s.dim, known.two(task.s.eps))
    oracle: Any = less(task.oracle, known.network, known.size)
    s = task.s
    ends, cost = _measured(task, ends, cost, not known.scale)
    for _ in range(ENDS):
        s = task.s._replace(near=ends.reach)
        state = lines.begin(s, seed, -1, task.budget - cost.queries)
        state = state._replace(u=ends.u, v=ends.v, scale=np.maximum(state.scale, known.scale))
        s, state = search(s, oracle, state, points=POINTS)
        cost = cost + asked(s, int(state.queries), int(state.rounds))
        if int(state.phase) != lines.FAULT:
            break
        ends = ends._replace(reach=ends.reach / SHRINK)
    if int(state.phase) != lines.DONE:
        spent = int(state.phase) == lines.SPENT or task.budget - cost.queries < 3
        raise _Ended(Status.BUDGET if spent else Status.NOISY, cost)
    network, _ = units.read_off(s, state)
    if network.width > NOISE:
        small = np.median(np.linalg.norm(network.weights, axis=0))
        if small < lines.ROUNDING * s.eps * float(state.scale):
            raise _Ended(Status.NOISY, cost)
        x = _between(network, ends, rng).astype(s.dtype)
        if not len(x):
            raise _Ended(Status.NOISY, cost)
        if cost.queries + len(x) > task.budget:
            raise _Ended(Status.BUDGET, cost)
        shown, cost = unchecked(oracle, x, shapes(s)).gradient, cost + asked(s, len(x))
        off = _off(network, x.astype(float), shown, s.eps, float(state.scale))
        if off.sum() >= len(x) / 2:
            raise _Ended(Status.NOISY, cost)
    network = replace(network, offset=network.offset - known.size)
    joined = _joined(known.network, network)
    size = known.size or float(np.abs(joined(ends.u + np.zeros((1, s.dim)))).max())
    known = known._replace(network=joined, scale=max(known.scale, float(state.scale)), size=size)
    return known, network.width, cost


def _off(
    network: TwoLayer, x: np.ndarray, gradient: np.ndarray, eps: float, scale: float
) -> np.ndarray:
    """At which points [n, d] the victim's gradient is another than the network's: [n]."""
    off = np.linalg.norm(network.gradient(x) - gradient, axis=2).max(1)
    bar = certify.GRADIENT * eps * (1 + network.width / 64) ** 0.5 * scale
    return ~(off <= bar)


def _between(network: TwoLayer, ends: Ends, rng: np.random.Generator) -> np.ndarray:
    """Points [n, d] of a line halfway between neighbouring units of its network."""
    along = network.rows @ ends.v
    met = along != 0
    t = np.sort(-(network.rows[met] @ ends.u + network.bias[met]) / along[met])
    i = rng.choice(max(len(t) - 1, 0), min(BETWEEN, max(len(t) - 1, 0)), replace=False)
    return np.asarray(ends.u + ((t[i] + t[i + 1]) / 2)[:, None] * ends.v)


def _measured(task: Task, ends: Ends, cost: Cost, first: bool) -> tuple[Ends, Cost]:
    """The line with ends as far out as its replies are numbers there."""
    if np.isfinite(ends.reach):
        return ends, cost
    u, limit = ends.u, task.region.limit

    def apart(x: np.ndarray) -> tuple[float, np.ndarray]:
        """How far logits part at x [n, d] at most, and their gradients."""
        nonlocal cost
        if cost.queries + len(x) > task.budget:
            raise _Ended(Status.BUDGET, cost)
        (reply,) = task.oracle.stream(x.astype(task.s.dtype), shapes(task.s))
        cost = cost + asked(task.s, len(x))
        shown = np.isfinite(reply.value).all() and np.isfinite(reply.gradient).all()
        return float(spread(reply.value).max()) if shown else np.inf, reply.gradient

    most, gradient = np.inf, np.zeros(0)
    if first and task.start is not None:
        x, (value, gradient) = task.start
        u, most = x[0], float(spread(value).max())
    for _ in range(ENDS):
        if most <= USUAL * limit:
            break
        most, gradient = apart(u[None])
        u = u if most <= USUAL * limit else u / 2
    slope = float(spread(gradient @ ends.v)[0])
    reach = min(USUAL * limit / max(slope, 1e-300), max(FARTHEST, task.s.eps**-0.5))
    for _ in range(ENDS):
        most, _ = apart(u[None] + reach * np.array([[-1.0], [1.0]]) * ends.v[None])
        if most <= limit:  # farther out the logits go on nearly as straight lines
            reach *= max(1.0, 0.8 * limit / most) if most > 0 else 1.0
            break
        reach *= max(0.9 * limit / most, 0.1)
    return Ends(u, ends.v, reach), cost


def certified(
    task: Task, rng: np.random.Generator, known: Known, cost: Cost
) -> tuple[Recovery, Known]:
    """The outcome by fresh queries; where these fail, between which points a unit is missing."""
    network, s = known.network, task.s
    count = network.width
    expected = task.width is None or task.width == count
    found = f"Units found: {count}."
    u, v = rng.standard_normal((2, s.dim))
    line = certify.Line(u, v, HALF, known.scale)
    if known.refutes(s.eps) and s.outputs > 1:
        return Recovery(network, Status.UNCERTIFIED, cost, detail=found), known
    least = repeated(task.region.least, known.failed)
    many = max(certify.how_many(count, task.width, s.eps), least)
    points, places = task.region.points(rng.integers(1 << 32, size=2), network, line, s.eps, many)
    idle = certify.idle(rng, network) if isinstance(task.region, Softmax) else []
    own = [p._replace(sample=slid(network, p.sample, task.region.limit)) for p in idle]
    own += task.places
    places, more = places + own, [certify.drawn(rng, place) for place in own]
    owner = [np.full(len(x), len(places) - len(more) + i) for i, x in enumerate(more)]
    x = np.concatenate([points.x, *more]).astype(s.dtype)
    apart = np.concatenate([spread(network(p)) for p in certify.parts(network, x.astype(float))])
    most = task.region.limit
    noise = np.full(len(x), task.floor)
    if s.outputs == 1 and most < np.inf:  # 1 - p still tells something of a logit beyond the limit
        most = min(SEEN, -np.log(2 * DIGIT * task.replied))
        noise = DIGIT * task.replied * np.exp(np.minimum(apart, most))
    shows = apart <= most
    x, noise = x[shows], noise[shows]
    points = Points(x.astype(float), np.concatenate([points.place, *owner])[shows])
    if len(x) < LEAST:
        detail = f"{found} {UNSEEN}"
        return Recovery(network, Status.UNCERTIFIED, cost, detail=detail), known
    if cost.queries + len(x) > task.budget:
        detail = f"{found} The certificate needs {len(x)} queries more."
        return Recovery(network, Status.BUDGET, cost, detail=detail), known
    try:
        reply = ask(task.oracle, x, shapes(s))
    except ReplyError:
        outcome = Recovery(network, Status.UNCERTIFIED, cost + asked(s, len(x)), detail=found)
        return outcome, known
    cost = cost + asked(s, len(x))
    verdict = certify.judge(network, points, *reply, known.scale, s.eps, places, noise)
    usual = network(places[0].sample)
    hidden = float(np.mean(spread(usual) > most))
    good = verdict.rounding <= 1 and verdict.error <= promise(task.replied) / certify.SAFETY
    if good and hidden > HIDDEN:
        detail = f"{found} {ALONE}"
        return Recovery(network, Status.UNCERTIFIED, cost, verdict.error, detail), known
    if good:
        status = Status.RECOVERED if expected else Status.OTHER_WIDTH
        said = [found] * (not expected)
        if hidden > 0:
            said.append(f"At {hidden:.1%} of usual inputs the softmax saturates: unseen there.")
        fresh = single(int(np.sum(points.place == 0)), known.failed)
        return Recovery(network, status, cost, verdict.error, " ".join(said), fresh), known
    if noise.min() > promise(task.replied) * certify.rms(usual):
        found = f"{found} {FAINT}"
    outcome = Recovery(network, Status.UNCERTIFIED, cost, verdict.error, found)
    known = known._replace(failed=known.failed + 1)
    if known.x is not None:
        x, gradient = np.concatenate([known.x, points.x]), [known.gradient, reply.gradient]
        return outcome, known._replace(x=x, gradient=np.concatenate(gradient))
    return outcome, known._replace(x=points.x, gradient=reply.gradient)


def _joined(a: TwoLayer, b: TwoLayer) -> TwoLayer:
    """The sum of two networks."""
    along: dict[str, Any] = {"rows": 0, "bias": 0, "weights": 1}
    parts = {name: (getattr(a, name), getattr(b, name)) for name in along}
    joined = {name: np.concatenate(parts[name], axis) for name, axis in along.items()}
    return TwoLayer(**joined, slope=a.slope + b.slope, offset=a.offset + b.offset)
