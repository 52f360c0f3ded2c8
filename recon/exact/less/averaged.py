"""Recovery from integrated gradients, or SmoothGrad, of all outputs.

Far out both are the gradient of the network without its biases, to all digits (`averages`), so
that `two_layer` finds its rows and weights there.  The biases follow from values at ordinary points
(`biases`), and the whole network is held against values, and the integrated gradients it would
have itself, near the origin.  Units with parallel rows are one unit far out: such a network fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from recon.exact import arrays, asking, derived, lines, near, probe, regions, two_layer, units
from recon.exact.derived import Derived
from recon.exact.inputs import Inputs, of_gradients
from recon.exact.less import averages
from recon.exact.less.averages import Average
from recon.exact.less.biases import Biases
from recon.exact.less.odds import Log, Spent
from recon.exact.lines import Settings
from recon.exact.recovery import COARSE, TOO_COARSE, Recovery, Status, promise
from recon.networks import TwoLayer
from recon.oracles import AnyOracle, Cost, Reply, ReplyError, View

SAMPLE = 64  # points at which the network itself is evaluated
APART = 3.0  # times normal: where the rule of the path is looked at
FRESH = 16  # fresh points at least, where values alone are held against the network
PARALLEL = (
    "The rows and weights found far out are not those near the origin: units with parallel rows "
    "are one unit there."
)
UNSEEN = (
    "The gradients that are averaged belong to a probability, each weighed by a p (1 - p) of its "
    "own, which is not shown. Ask for those of the logit."
)


Solve = Callable[[TwoLayer], tuple[TwoLayer, bool]]


class _Ended(Exception):
    def __init__(self, outcome: Recovery) -> None:
        self.outcome = outcome


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


class _Attack:
    """One recovery: what is asked, and what was spent."""

    def __init__(self, oracle: AnyOracle, dim: int, width: int | None, most: int) -> None:
        self.view, self.dim, self.width, self.most = oracle.view, dim, width, most
        path = oracle.view.path
        self.average = None if path is None else averages.declared(path, dim)[0]
        self.start = np.zeros(dim) if self.average is None else self.average.start
        self.oracle, self.form = oracle.form(dim, self.start)
        self.cost = self.form.cost
        self.eps = max(float(jnp.finfo(a).eps) for a in (self.form.asked, self.form.replied))

    def end(self, status: Status, detail: str = "") -> _Ended:
        return _Ended(Recovery(None, status, self.cost, detail=detail))

    def ask(self, x: np.ndarray, oracle: Any = None) -> Reply:
        """Replies to x [n, d] of an oracle, at the service's cost."""
        if self.cost.queries + len(x) > self.most:
            raise self.end(Status.BUDGET)
        reply = two_layer.ask(self.oracle if oracle is None else oracle, x.astype(self.form.asked))
        self.cost += Cost(len(x), 0, len(x) * self.form.outputs * (self.dim + 1), 1)
        return reply

    def run(self, seed: np.ndarray) -> Recovery:
        seed, first_seed = arrays.split(seed, 2)
        rng = np.random.default_rng(first_seed)
        oracle, inputs = self.far_out(self.beside_baseline(rng), rng)
        outcome = Recovery(None, Status.UNCERTIFIED, self.cost)
        for search in (self.one_line, self.certified_lines):
            seed, far_seed, bias_seed, last_seed = arrays.split(seed, 4)
            if (network := search(oracle, inputs, far_seed)) is None:
                return replace(outcome, cost=self.cost)
            scale = np.ones(self.dim)
            sample = rng.standard_normal((SAMPLE, self.dim))
            if (inputs := of_gradients(network.gradient(sample))) is not None:
                scale = inputs.scale
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

    def beside_baseline(self, rng: np.random.Generator) -> np.ndarray:
        """What the path's terms at the baseline add, [K, d]; ends where the path is another."""
        outputs, average = self.form.outputs, self.average
        if outputs == 1 and self.view.of != "logits":
            raise self.end(Status.UNFIT, UNSEEN)
        if average is None:
            x = rng.standard_normal((1, self.dim))
            self.coarse(self.ask(x))
            return np.zeros((outputs, self.dim))
        x = averages.beside(average, rng)
        first = Reply(self.form.value, self.form.gradient)
        if not len(first.value):
            x = np.concatenate([self.start[None], x])
        asked = self.ask(x)
        reply = Reply(*(np.concatenate(pair)[-3:] for pair in zip(first, asked, strict=True)))
        self.coarse(reply)
        x = np.concatenate([self.start[None], x[-2:]])
        if np.abs(reply.gradient[0]).max() > 1e-3 * np.abs(reply.gradient[1:]).max():
            raise self.end(
                Status.UNFIT,
                "Integrated gradients vanish at their baseline, and these do not at the one that "
                "is declared: View(path=Path(baseline=...)).",
            )
        step = x[1:] - x[:1]
        mean = averages.centred(self.view, reply.gradient[1:] / step[:, None])
        f = derived.values(self.view, reply.value)
        blur = max(averages.ALIKE, 64 * self.eps / averages.NEAR)
        self.average = self.weighed(average, mean, step, f[1:] - f[:1], blur)
        alike = np.abs(mean[0] - mean[1]).max() <= blur * np.abs(mean).max()
        total = average.weights.sum()
        return np.asarray((total - average.moving) / total * mean[0] * alike)

    def coarse(self, reply: Reply) -> None:
        """Digits that are missing in ordinary replies; ends where too many are."""
        self.eps = max(self.eps, probe.digits(reply))
        if self.eps > COARSE:
            asked = f"Asked in {self.form.asked}, answered in {self.form.replied}."
            raise self.end(Status.UNCERTIFIED, f"{asked} {TOO_COARSE}")

    def weighed(
        self, average: Average, mean: np.ndarray, step: np.ndarray, change: np.ndarray, blur: float
    ) -> Average:
        """The rule with weights as the service rounds them: in float64, or in float32 as Captum.

        Where no unit switches near the baseline, mean [2, K, d] times step [2, d] is the change
        [2, K] of the values, times the sum of the weights.
        """
        said = np.einsum("nkd,nd->nk", mean, step)
        sums = (said * change).sum(1) / np.maximum((change**2).sum(1), 1e-300)
        total = float(average.weights.sum())
        seen = np.abs(change).max() > 1e3 * self.eps * (1 + np.abs(said).max())
        if seen and np.ptp(sums) <= blur and abs(sums.mean() - total) > 100 * blur:
            raise self.end(
                Status.UNFIT,
                f"The weights of the path sum to {sums.mean():.4g}, those of "
                f"{self.view.path} to {total:.4g}: another rule?",
            )
        both = averages.declared(self.view.path, self.dim)
        off = [np.abs(sums - rule.weights.sum()).min() for rule in both]
        return both[int(off[1] < off[0])]

    def far_out(
        self, constant: np.ndarray, rng: np.random.Generator
    ) -> tuple[Derived, Inputs | None]:
        """The oracle of the network without biases, and its inputs' scales; ends where replies are
        plainly of another kind.
        """
        form, eps = self.form, self.eps
        oracle = averages.far(self.oracle, self.view, self.average, constant, eps)
        two_layer.check_memory(self.settings(eps))
        z = probe.points(rng, -np.ones(self.dim), np.ones(self.dim), eps).astype(form.asked)
        reply = self.ask(z, oracle)
        finding = probe.findings(z.astype(float), reply, eps)
        if finding.sentence:
            raise self.end(Status.UNFIT, f"Far out: {finding.sentence}")
        return oracle, of_gradients(reply.gradient)

    def settings(self, eps: float) -> Settings:
        room = two_layer.room(self.width)
        return Settings(self.dim, self.form.outputs, room, self.form.asked, eps)

    def one_line(self, oracle: Derived, inputs: Inputs | None, seed: np.ndarray) -> TwoLayer:
        """The network without biases by one line, which the certificate of all of it may refuse."""
        s = self.settings(self.eps * (1.0 if inputs is None else inputs.blur))
        seen = oracle if inputs is None else oracle.scaled(inputs.shift, inputs.scale, s.dtype)
        told = -1 if self.width is None else self.width
        state = lines.begin(s, seed, told, self.most - self.cost.queries)
        s, state = two_layer.search(s, seen, state)
        self.cost += two_layer.asked(s, int(state.queries), int(state.rounds))
        network, _ = units.read_off(s, state)
        network = network if inputs is None else inputs.restored(network)
        if (phase := int(state.phase)) == lines.FAULT:
            row = f"query row {int(state.fault)} of {int(state.queries)}"
            raise ReplyError(f"{row} far out: the reply is not finite")
        if phase != lines.DONE:
            raise self.end(Status.BUDGET if phase == lines.SPENT else Status.NOISY)
        return self.without_biases(network)

    def certified_lines(
        self, oracle: Derived, inputs: Inputs | None, seed: np.ndarray
    ) -> TwoLayer | None:
        """The same by as many lines as a certificate far out asks for, or None."""
        victim = two_layer.Victim(
            oracle,
            self.dim,
            self.form.outputs,
            self.form.asked,
            self.eps,
            self.cost,
            inputs,
            None,
            None,
        )
        outcome = two_layer.recover(victim, seed, self.width, self.most)
        self.cost = outcome.cost
        if outcome.network is None or not outcome.ok:
            return None
        return self.without_biases(outcome.network)

    def without_biases(self, network: TwoLayer) -> TwoLayer:
        """With rows of length one, and what rounding makes of no bias left out."""
        none = Inputs(np.zeros(self.dim), np.ones(self.dim))
        bias, offset = np.zeros(network.width), np.zeros(self.form.outputs)
        return replace(none.restored(network), bias=bias, offset=offset)

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
        limit, coarser = derived.limits(View(self.view.outputs), self.form)
        eps = self.eps * coarser
        least = FRESH if self.average is None else 0
        region: Any = regions.Anywhere(least=least) if np.isinf(limit) else regions.Softmax(limit)
        inputs = Inputs(np.zeros(self.dim), scale)
        inner = inputs.inside(network)
        rng = np.random.default_rng(seed)
        said = self.ruled(network, scale, rng)
        oracle = averages.near(self.oracle, self.view, self.average, network, scale)
        steep = np.linalg.norm(
            inner.gradient(rng.standard_normal((SAMPLE, self.dim))), axis=2
        ).max()
        task = near.Task(
            oracle, self.settings(eps), region, self.width, self.most, promise(eps), [], None
        )
        outcome, _ = near.certified(task, rng, near.Known(inner, float(steep)), self.cost)
        detail = f"{outcome.detail} {said}".strip()
        return replace(outcome, network=network, detail=detail)

    def ruled(self, network: TwoLayer, scale: np.ndarray, rng: np.random.Generator) -> str:
        """Take up the rule that the service really goes by, and say so if it was not declared."""
        if self.average is None:
            return ""
        x = APART * scale[None] * rng.standard_normal((1, self.dim))
        x = x.astype(np.float32).astype(np.float64)
        mean = self.ask(x).gradient / (x - self.start[None])[:, None]
        mean = averages.centred(self.view, mean)
        assert self.view.path is not None
        average, path = averages.fitting(self.view.path, network, x, mean, self.eps)
        if average is None:
            return (
                "The values fit, but the explanations are not those of the declared baseline and "
                "rule, nor of another rule from there."
            )
        self.average = average
        return "" if path == self.view.path else f"The explanations are by {path}, not as declared."
