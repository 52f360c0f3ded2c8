"""One attack for every service: what it shows, and where it may be asked, decide the method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from recon import probe
from recon.exact import asking, deep, derived, near, regions, two_layer
from recon.exact.inputs import NOTHING, Inputs, check_whole, of_box, of_data, of_gradients
from recon.exact.less import averaged, by_values, top_logit, top_probability, top_value
from recon.exact.less.odds import OneOutput
from recon.exact.lines import Settings
from recon.exact.recovery import COARSE, CONSTANT, Recovery, Status, promise
from recon.exact.two_layer import Victim
from recon.explanations import SHOWN
from recon.networks import TwoLayer
from recon.oracles import AnyOracle, Cost, HostOracle, Reply, check, need

ODDS = ("probabilities", "log_probabilities")
# Forms that leave an explanation what it is: the others take signs, pixels or the scale away.
ROUNDED = tuple(name for name, form in SHOWN.items() if form.match is SHOWN["plain"].match)

NEARER = (1.0, 2.0**-6, 2.0**-12)  # sizes of the first points, until one class is not certain

# The methods for services that show less than all gradients, by outputs, explanation and `of`.
LESS: dict[tuple[str, str, str], Callable[..., Recovery]] = {
    ("top", "top", "logits"): top_value.recover,
    **{(shown, "none", ""): by_values.recover for shown in ("logits", "values", *ODDS)},
    **{(shown, "top", "logits"): top_logit.recover for shown in ("logits", *ODDS)},
    **{(shown, "top", "probabilities"): top_probability.recover for shown in ODDS},
    **{
        (shown, mean, of): averaged.recover
        for mean in ("integrated_gradients", "smoothgrad")
        for of, all_shown in (
            ("logits", ("logits", "values", *ODDS)),
            ("log_probabilities", ODDS),
        )
        for shown in all_shown
    },
}


def recover(
    oracle: AnyOracle,
    *,
    dim: int,
    key: Any,
    width: int | None = None,
    budget: int | None = None,
    data: Any = None,
    box: Any = None,
    classes: int | None = None,
    precision: float | None = None,
    depth: int | None = None,
    share: float = deep.SHARE,
    whole: bool = False,
) -> Recovery:
    """Recover a ReLU network of `dim` inputs from gradient queries: its depth, widths and weights.

    oracle: `oracles.from_jax` or `oracles.from_host`, with the `View` of what it shows; key: a
    JAX key, consumed, or a whole number; width: the number of hidden units if known (it saves
    queries and is checked); budget: most queries to ask, certificate included, else some 30,000
    where the victim does not fit.  data [n, d]: inputs of the user's own; queries are spread as
    they are, and the certificate asks 64 queries more among them.  Any number of outputs, biases
    or none, any rows.  Without data, inputs of very different scale are told from the victim's
    gradients.  box: (low, high), numbers or [d] each, that no query leaves; the network is then
    recovered and certified inside it.  whole: no query has other than whole numbers, as where
    inputs are pixels from 0 to 255; what lies between is not seen, and not promised.  precision:
    how far replies may be off, relative to the largest gradient, if that is coarser than their
    dtype; float32 behind JSON, decimals and finite differences are found out.

    Of a service that shows probabilities, or Jacobians of these or of their logarithms, the network
    of centred logits is recovered (`derived`): its probabilities are the victim's.  Jacobians times
    inputs are divided by these.  Services that explain the top class alone, or nothing at all, or
    means of gradients (integrated gradients, SmoothGrad) have methods of their own, named in LESS;
    they look at neither box nor data.  The first two promise 1e-6.
    Of logits that may be asked for anywhere, in float64, networks of more hidden layers come out
    too (`deep`), with at most `dim` units in the first; depth: the number of hidden layers, if
    known; share: of standard normal inputs, the most that a deep network may be wrong on, with
    95 % confidence: it costs ln(20) / share queries.
    classes: how many there are, if known, for a service of the top label and its logit, where all
    come out that are on top somewhere.

    Returns a Recovery; what `ok` promises is said there.  Raises ReplyError for replies that are
    not finite or of the wrong shape, ViewError for a service that shows less, ValueError for
    arguments that make no sense, and lets an oracle's own exceptions through.
    """
    if isinstance(oracle, HostOracle) and oracle.repeats > 1:
        # a row is a query here, and is counted as often as it was asked
        few = None if budget is None else budget // oracle.repeats
        got = recover(
            replace(oracle, repeats=1),
            dim=dim,
            key=key,
            width=width,
            budget=few,
            data=data,
            box=box,
            classes=classes,
            precision=precision,
            depth=depth,
            share=share,
            whole=whole,
        )
        return replace(got, cost=got.cost * oracle.repeats)
    method = LESS.get(_kind(oracle))
    need(oracle, shown="plain" if method is not None else ROUNDED)
    if method is None:
        shown = ("logits", "values", "probabilities", "log_probabilities")
        need(oracle, outputs=shown, explanation=("jacobian", "input_x_gradient"))
    counts = [("dim", dim, 1), ("width", width, 1), ("depth", depth, 1), ("classes", classes, 1)]
    counts.append(("budget", budget, 0))
    for name, number, least in counts:
        if number is None and name != "dim":
            continue
        if not isinstance(number, (int, np.integer)) or number < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {number!r}")
    if precision is not None and not 0 < precision < 1:
        raise ValueError(f"precision must lie between 0 and 1, not {precision!r}")
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, not {share!r}")
    if budget == 0:
        return Recovery(None, Status.BUDGET, Cost(), detail="The budget allows no query.")
    if method is not None and not (box is data is precision is None and not whole):
        raise ValueError(
            "box, data, precision and whole need the gradients of all outputs, not means"
        )

    def attack(oracle: AnyOracle, budget: int | None) -> Recovery:
        if method is not None:
            more = {"classes": classes} if method is top_value.recover else {}
            return _less(oracle, method, dim, key, width, budget, depth, more)
        deeper, cost = None if depth == 1 else share, Cost()
        for size in NEARER[: 1 if box is not None else None]:
            left = None if budget is None else budget - cost.queries
            told = (width, left, data, box, precision, deeper, whole)
            got = _recover(oracle, dim, key, *told, size)
            cost = cost + got.cost
            if got.detail != derived.SATURATED or (left is not None and left <= got.cost.queries):
                break
        return replace(got, cost=cost)

    with jax.enable_x64(True):
        try:
            got = attack(oracle, budget)
            return got if method is None and box is None else _constant(got, oracle.view.outputs)
        except asking.OffScale as off:
            left = None if budget is None else budget - off.cost.queries
            got = attack(asking.in_units(oracle, off.unit), left)
            network = asking.of_units(got.network, off.unit)
            return replace(got, network=network, cost=off.cost + got.cost)


def _constant(got: Recovery, outputs: str) -> Recovery:
    """The same, but that a network of one number of few decimals is not certain, where it cannot be
    asked so far out that rounding is nothing.
    """
    network = got.network
    if not got.ok or not isinstance(network, TwoLayer) or network.width:
        return got
    shown = np.asarray(network.offset)
    if np.abs(network.slope).max(initial=0.0) > NOTHING * np.abs(shown).max(initial=0.0):
        return got
    if "probabilities" in outputs:
        log_p = -np.logaddexp(0, -shown) if len(shown) == 1 else shown - np.logaddexp.reduce(shown)
        shown = log_p if outputs == "log_probabilities" else np.exp(log_p)
    if probe.decimals(shown) is None:
        return got
    return replace(got, status=Status.UNCERTIFIED, detail=CONSTANT)


def _kind(oracle: AnyOracle) -> tuple[str, str, str]:
    need(oracle)
    view = oracle.view
    return view.outputs, view.explanation, view.of if view.axes else ""


def _less(
    oracle: AnyOracle,
    method: Callable[..., Recovery],
    dim: int,
    key: Any,
    width: int | None,
    budget: int | None,
    depth: int | None,
    more: dict[str, Any],
) -> Recovery:
    """By a method of LESS; or by all gradients, where the top output is the only one; or by values
    alone, where the gradients of top classes do not tell all, or means of them.
    """
    means = method is averaged.recover
    values = means or method in (top_logit.recover, top_probability.recover)
    exactly = {"promise": promise(np.finfo(np.float64).eps)} if means else {}
    if dim == 1 and values and not means:
        return by_values.recover(oracle, dim, key, width, budget)
    try:
        first = method(oracle, dim, key, width, budget, **more)
    except OneOutput as one:
        every = replace(oracle, view=replace(oracle.view, explanation="jacobian"))
        left = None if budget is None else budget - one.cost.queries
        got = recover(every, dim=dim, key=key, width=width, budget=left, depth=depth)
        return replace(got, cost=one.cost + got.cost)
    if not values or first.status is not Status.UNCERTIFIED or first.network is None:
        return first
    left = None if budget is None else budget - first.cost.queries
    got = by_values.recover(oracle, dim, key, width, left, **exactly)
    return replace(got if got.ok else first, cost=first.cost + got.cost)


def _recover(
    oracle: AnyOracle,
    dim: int,
    key: Any,
    width: int | None,
    budget: int | None,
    data: Any,
    box: Any,
    precision: float | None,
    deeper: float | None,
    whole: bool,
    size: float,
) -> Recovery:
    """By all gradients; size: of the first points, over those of usual inputs."""
    inputs, z = (None, None) if data is None else of_data(data, dim)
    bounds, target = None, derived.logits(oracle)
    if whole:
        check_whole(box, data)
        target = derived.whole(target)
    if box is not None:
        inputs, *bounds = of_box(box, dim)
        z = None if data is None else inputs.seen(np.asarray(data, np.float64))
    at = None if inputs is None else inputs.shift
    at = size * np.ones(dim) if at is None and size < 1 else at
    logits, form = target.form(dim, at)
    cost, most = form.cost, np.iinfo(np.int32).max if budget is None else budget
    known = (jnp.finfo(form.asked).eps, jnp.finfo(form.replied).eps, precision or 0.0)
    eps = max(float(unit) for unit in known)
    seed, seen, replied = asking.seed(key), None, eps
    if eps <= COARSE:
        two_layer.check_memory(Settings(dim, form.outputs, two_layer.room(width), form.asked, eps))
    limit, coarser = derived.limits(oracle.view, form)
    saturated = Recovery(None, Status.UNCERTIFIED, cost, detail=derived.SATURATED)
    if not Reply(form.value, form.gradient).finite:
        return saturated
    if eps <= COARSE and most >= cost.queries + 2 * probe.MOST:
        half = size * (regions.BESIDE * 3**0.5 if np.isfinite(limit) else 1.0)
        low, high = (-half * np.ones(dim), half * np.ones(dim)) if bounds is None else bounds
        first = Reply(form.value, form.gradient)  # float32 behind JSON comes as float64
        some = probe.points(np.random.default_rng(seed), low, high, max(eps, probe.digits(first)))
        asked = Cost(len(some), 0, len(some) * form.outputs * (dim + 1), 1)
        for side in (some, low + high - some):  # where all units are off replies show no digits
            x = side if inputs is None else inputs.shift[None] + inputs.scale[None] * side
            x, cost = x.astype(form.asked), cost + asked
            own, reply = derived.both(logits, x)
            if reply.gradient.any() or most < cost.queries + 2 * asked.queries:
                break
        hides = derived.hides(oracle.view)
        if not hides:
            asking.check_scale(reply.gradient, cost)
        if hides and len(form.value) and not reply.finite:
            return replace(saturated, cost=cost)  # what a service on the host answered was finite
        reply = check(reply, *x.shape)
        if not (hides or reply.gradient.any()) and bounds is None:
            sides = np.where(np.arange(len(x)) % 2, -probe.FAR, probe.FAR)  # every unit is on
            far, cost = (sides[:, None] * x).astype(form.asked), cost + asked
            beyond = derived.both(logits, far)[1]
            if probe.lost(beyond):
                return Recovery(None, Status.UNCERTIFIED, cost, detail=CONSTANT)
            eps = max(eps, probe.digits(beyond))
        numbers = np.concatenate([part.ravel() for part in own])
        replied = max(eps, probe.few_digits(numbers) if hides else probe.digits(own))
        faint = derived.faint(oracle.view, x, reply)
        if replied <= COARSE < replied * faint:
            return Recovery(None, Status.UNCERTIFIED, cost, detail=derived.FAINT)
        blurred = replied * derived.blurred(oracle.view, reply)
        shown = derived.lifted(oracle.view, reply)
        found = probe.findings(x.astype(float), shown, blurred, derived=hides)
        if found.sentence:
            return Recovery(None, Status.UNFIT, cost, detail=found.sentence)
        eps = replied if blurred > replied else found.eps
        coarser, replied = max(coarser, faint), replied if hides else eps
        if inputs is None and (guess := of_gradients(reply.gradient)) is not None:
            steep = np.linalg.norm(reply.gradient * guess.scale, axis=2).max()
            inputs = guess if size == 1 or steep <= limit else None  # else it saturates there too
        fresh = [0, 3]
        seen = x[fresh].astype(float), Reply(*(part[fresh] for part in reply))
    if eps > COARSE:
        at = np.zeros((1, dim)) if inputs is None else inputs.shift[None]
        return two_layer.too_coarse(logits, at, form.asked, form.replied, cost)
    if inputs is None and size < 1:
        inputs = Inputs(np.zeros(dim), np.full(dim, size))
    units, limit = (eps * coarser, replied), derived.limits(oracle.view, form, replied)[0]
    floor = derived.floor(oracle.view, replied)
    victim = Victim(logits, dim, form.outputs, form.asked, *units, cost, inputs, z, seen, floor)
    if bounds is not None:
        grid = inputs if whole else None
        region = regions.Box(bounds[0], bounds[1], limit, grid=grid)
        return near.recover(victim, region, seed, width, most)
    if np.isfinite(limit):
        return near.recover(victim, regions.Softmax(limit), seed, width, most)
    return two_layer.recover(victim, seed, width, most, deeper)
