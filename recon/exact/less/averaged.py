"""Recovery from integrated gradients, or SmoothGrad, of all outputs.

Far out both are the gradient of the network without its biases, to all digits (`averages`), so
that one line there shows its rows and weights.  The biases follow from values at ordinary points
(`biases`), and the whole network is held against values, and the integrated gradients it would
have itself, near the origin.  Where that fails, biases are sharpened, and then the search far out
is done again until it is certified there.  Units with parallel rows are one unit far out: such a
network fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from recon import probe
from recon.exact import (
    arrays,
    asking,
    certify,
    derived,
    lines,
    near,
    regions,
    two_layer,
    units,
)
from recon.exact.asking import Spent
from recon.exact.inputs import Inputs, of_gradients
from recon.exact.less import averages, baseline, beside
from recon.exact.less.biases import Biases
from recon.exact.less.odds import Log
from recon.exact.lines import Settings
from recon.exact.recovery import COARSE, TOO_COARSE, Recovery, Status
from recon.networks import TwoLayer
from recon.oracles import AnyOracle, Cost, Reply, ReplyError, View, check

SAMPLE = 64  # points at which the network itself is evaluated
APART = 3.0  # times normal: where the rule of the path is looked at
FRESH = 14  # fresh points, of a single certificate, where values alone are held against it
PARALLEL = (
    "The rows and weights found far out are not those near the origin, as where units with "
    "parallel rows are one unit there, or probabilities tell too little near the origin."
)
UNRULED = (
    "The explanations are not those of the network found, by the declared baseline and rule or "
    "another rule, as where units have parallel rows, which are one far out, or the baseline is "
    "another."
)
UNSEEN = (
    "The gradients that are averaged belong to a probability, each weighed by a p (1 - p) of its "
    "own, which is not shown. Ask for those of the logit."
)

Solve = Callable[[TwoLayer], tuple[TwoLayer, bool]]


def recover(
    oracle: AnyOracle, dim: int, key: Any, width: int | None = None, budget: int | None = None
) -> Recovery:
    """Recover a two-layer ReLU network of `dim` inputs from means of its gradients.

    The service shows logits, values, probabilities or log-probabilities, and integrated gradients
    by `View.path` or SmoothGrad, of the logits of all outputs; of log-probabilities these are the
    same but for what all outputs have in common.
    """
    asking.check_arguments(dim, width, budget)
    most = np.iinfo(np.int32).max if budget is None else budget
    try:
        return _Attack(oracle, dim, width, most).run(asking.seed(key))
    except _Ended as ended:
        return ended.outcome


class _Ended(Exception):
    def __init__(self, outcome: Recovery) -> None:
        self.outcome = outcome


class _Attack:
    """One recovery: the service, what is known of it, and what was spent."""

    def __init__(self, oracle: AnyOracle, dim: int, width: int | None, most: int) -> None:
        self.view, self.dim, self.width, self.most = oracle.view, dim, width, most
        path = self.view.path
        self.average = None if path is None else averages.declared(path, dim)[0]
        start = np.zeros(dim) if self.average is None else self.average.start
        found: Any = oracle.form(dim, start)
        self.oracle, self.form = found
        self.cost = self.form.cost
        self.eps = max(float(jnp.finfo(a).eps) for a in (self.form.asked, self.form.replied))
        self.replied = self.eps

    def run(self, seed: np.ndarray) -> Recovery:
        seed, first_seed = arrays.split(seed, 2)
        rng = np.random.default_rng(first_seed)
        far, inputs = self.far_out(self.beginning(rng), rng)
        outcome = Recovery(None, Status.UNCERTIFIED, self.cost)
        # where touches alone tell single kinks, and values alone are held to the network in the end
        doubtful = self.average is None and self.form.outputs < lines.SEVERAL
        first = self.certified_lines if doubtful else self.one_line
        for search in (first, self.certified_lines):
            seed, far_seed, bias_seed, last_seed = arrays.split(seed, 4)
            if (network := search(far, inputs, far_seed)) is None:
                outcome = replace(outcome, cost=self.cost)
                continue
            sample = network.gradient(rng.standard_normal((SAMPLE, self.dim)))
            inputs = of_gradients(sample, SAMPLE)
            scale = np.ones(self.dim) if inputs is None else inputs.scale
            solver = self.solver(scale, bias_seed)
            for solve in (solver.found, solver.sharper):
                network, good = self.solved(solver, solve, network)
                if not good:
                    outcome = Recovery(network, Status.UNCERTIFIED, self.cost, detail=PARALLEL)
                    break
                outcome = self.certified(network, scale, last_seed)
                self.cost = outcome.cost
                if outcome.ok or outcome.status is Status.BUDGET:
                    return outcome
        return outcome

    def end(self, status: Status, detail: str = "") -> _Ended:
        return _Ended(Recovery(None, status, self.cost, detail=detail))

    def ask(self, x: np.ndarray, oracle: Any = None) -> Reply:
        """Replies to x [n, d] of an oracle, at the service's cost."""
        if self.cost.queries + len(x) > self.most:
            raise self.end(Status.BUDGET)
        oracle, x = self.oracle if oracle is None else oracle, x.astype(self.form.asked)
        reply = two_layer.unchecked(oracle, x)
        self.cost += Cost(len(x), 0, len(x) * self.form.outputs * (self.dim + 1), 1)
        if derived.hides(self.view) and not self.oracle.traced and not reply.finite:
            raise self.end(Status.UNCERTIFIED, derived.SATURATED)  # its own answer was finite
        return check(reply, *x.shape)

    def settings(self, eps: float) -> Settings:
        room = two_layer.room(self.width)
        return Settings(self.dim, self.form.outputs, room, self.form.asked, eps)

    # --- before the search

    def beginning(self, rng: np.random.Generator) -> np.ndarray:
        """What the path's terms at the baseline add, [K, d], by the first queries; ends where they
        tell that nothing fits.
        """
        none = np.zeros((self.form.outputs, self.dim))
        if self.form.outputs == 1 and self.view.of != "logits":
            raise self.end(Status.UNFIT, UNSEEN)
        if self.average is None or self.view.path is None:
            self.coarse(self.ask(rng.standard_normal((1, self.dim))))
            return none
        x, seen = baseline.points(self.average, rng), len(self.form.value)
        asked = self.ask(x[1:] if seen else x)  # a service on the host was asked at the baseline
        first = Reply(self.form.value, self.form.gradient)
        reply = Reply(*(np.concatenate(pair) for pair in zip(first, asked, strict=True)))
        self.coarse(reply)
        self.average, constant, sentence = baseline.told(
            self.view, self.view.path, x, reply, self.eps
        )
        if sentence:
            raise self.end(Status.UNFIT, sentence)
        return constant

    def coarse(self, reply: Reply) -> None:
        """Digits that are missing in ordinary replies; ends where too many are."""
        self.eps = max(self.eps, probe.digits(reply))
        places = probe.decimals(reply.value)
        self.replied = self.eps if places is None else min(self.eps, 10.0**-places)
        if self.eps > COARSE:
            asked = f"Asked in {self.form.asked}, answered in {self.form.replied}."
            raise self.end(Status.UNCERTIFIED, f"{asked} {TOO_COARSE}")

    def far_out(self, constant: np.ndarray, rng: np.random.Generator) -> tuple[Any, Inputs | None]:
        """The oracle of the network without biases, and its inputs' scales; ends where replies are
        plainly of another kind.
        """
        far = averages.far(self.oracle, self.view, self.average, constant, self.eps)
        two_layer.check_memory(self.settings(self.eps))
        z = probe.points(rng, -np.ones(self.dim), np.ones(self.dim), self.eps)
        reply = self.ask(z, far)
        if sentence := probe.findings(z, reply, self.eps).sentence:
            raise self.end(Status.UNFIT, f"Far out: {sentence}")
        return far, of_gradients(reply.gradient)

    # --- the search far out

    def one_line(self, far: Any, inputs: Inputs | None, seed: np.ndarray) -> TwoLayer:
        """The network without biases by one line, which the certificate of all of it may refuse."""
        s = self.settings(self.eps * (1.0 if inputs is None else inputs.blur))
        far = far if inputs is None else far.scaled(inputs.shift, inputs.scale, s.dtype)
        told = -1 if self.width is None else self.width
        state = lines.begin(s, seed, told, self.most - self.cost.queries)
        s, state = two_layer.search(s, far, state)
        self.cost += two_layer.asked(s, int(state.queries), int(state.rounds))
        phase = int(state.phase)
        if phase == lines.FAULT:
            row = f"query row {int(state.fault)} of {int(state.queries)}"
            raise ReplyError(f"{row} far out: the reply is not finite")
        if phase != lines.DONE:
            raise self.end(Status.BUDGET if phase == lines.SPENT else Status.NOISY)
        network, _ = units.read_off(s, state)
        return self.without_biases(network if inputs is None else inputs.restored(network))

    def certified_lines(self, far: Any, inputs: Inputs | None, seed: np.ndarray) -> TwoLayer | None:
        """The same by as many lines as a certificate far out asks for, or None."""
        form = (self.dim, self.form.outputs, self.form.asked, self.eps, self.eps)
        victim = two_layer.Victim(far, *form, self.cost, inputs, None, None)
        outcome = two_layer.recover(victim, seed, self.width, self.most)
        self.cost = outcome.cost
        if not isinstance(outcome.network, TwoLayer) or not outcome.ok:
            return None
        return self.without_biases(outcome.network)

    def without_biases(self, network: TwoLayer) -> TwoLayer:
        """With rows of length one, and what rounding makes of no bias left out."""
        none = Inputs(np.zeros(self.dim), np.ones(self.dim))
        bias, offset = np.zeros(network.width), np.zeros(self.form.outputs)
        return replace(none.restored(network), bias=bias, offset=offset)

    # --- near the origin

    def solver(self, scale: np.ndarray, seed: np.ndarray) -> Biases:
        """For biases, by values alone."""
        alone = replace(self.oracle, view=View(self.view.outputs, "none"))
        log = Log(alone, self.dim)
        log.eps = self.eps
        limit = derived.limits(View(self.view.outputs), self.form)[0]
        return Biases(log, self.form.outputs, scale, limit, np.random.default_rng(seed))

    def solved(self, solver: Biases, solve: Solve, network: TwoLayer) -> tuple[TwoLayer, bool]:
        """The network with biases, and whether they fit all values."""
        log = solver.log
        log.budget = self.most - self.cost.queries + len(log.x)
        try:
            return solve(network)
        except Spent:
            raise _Ended(Recovery(network, Status.BUDGET, self.cost + log.cost)) from None
        finally:
            self.cost, log.cost = self.cost + log.cost, Cost()

    def certified(self, network: TwoLayer, scale: np.ndarray, seed: np.ndarray) -> Recovery:
        """The network held against values, and means of gradients, near the origin."""
        rng = np.random.default_rng(seed)
        inner = Inputs(np.zeros(self.dim), scale).inside(network)
        said: str | None = ""
        if self.average is not None and (said := self.ruled(network, scale, rng)) is None:
            return Recovery(network, Status.UNCERTIFIED, self.cost, detail=UNRULED)
        limit, coarser = derived.limits(View(self.view.outputs), self.form)
        eps = self.eps * coarser
        least = FRESH if self.average is None else 0
        region: Any = regions.Anywhere(least=least) if np.isinf(limit) else regions.Softmax(limit)
        oracle = averages.near(self.oracle, self.view, self.average, network, scale)
        if self.average is None and not self.beside(inner, oracle, limit, eps, rng):
            return Recovery(network, Status.UNCERTIFIED, self.cost, detail=PARALLEL)
        away = averages.FAR * rng.standard_normal((SAMPLE, self.dim))  # a unit is on at x or -x
        sample = inner.gradient(np.concatenate([away, -away]))
        known = near.Known(inner, float(np.linalg.norm(sample, axis=2).max()))
        s = self.settings(eps)
        floor = derived.floor(self.view, self.eps)
        task = near.Task(oracle, s, region, self.width, self.most, self.replied, [], None, floor)
        outcome, _ = near.certified(task, rng, known, self.cost)
        return replace(outcome, network=network, detail=f"{outcome.detail} {said}".strip())

    def beside(
        self, inner: TwoLayer, oracle: Any, limit: float, eps: float, rng: np.random.Generator
    ) -> bool:
        """Whether values beside every plane are those of the network."""
        z = beside.points(inner, limit, rng)
        if not len(z):
            return True
        off = np.abs(inner(z) - self.ask(z, oracle).value).max(1)
        steep = float(np.linalg.norm(inner.weights) + np.linalg.norm(inner.slope))
        return bool((off <= certify.VALUE * eps * certify.size(inner(z), z, steep)).all())

    def ruled(self, network: TwoLayer, scale: np.ndarray, rng: np.random.Generator) -> str | None:
        """Take up the rule that the service really goes by, and say so if it was not declared;
        None where there is none.
        """
        assert self.average is not None
        assert self.view.path is not None
        x = APART * scale[None] * rng.standard_normal((1, self.dim))
        x = x.astype(np.float32).astype(np.float64)
        mean = self.ask(x).gradient / (x - self.average.start[None])[:, None]
        mean = averages.centred(self.view, mean)
        average, path = averages.fitting(self.view.path, network, x, mean, self.eps)
        if average is None:
            return None
        self.average = average
        return "" if path == self.view.path else f"The explanations are by {path}, not as declared."
