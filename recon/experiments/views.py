"""Exact recovery through what services show: fewer numbers than logits and their Jacobians."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from recon import data, exact, oracles, victims
from recon.experiments.common import Measured, Row, columns
from recon.networks import Network, TwoLayer
from recon.oracles import View

Trained = Callable[[tuple[int, ...], int], TwoLayer]  # of a key's bits and hidden units

WRONG = 1e-6  # relative error above which a network with `ok` is a wrong one

LOGITS = View()
ODDS = View("probabilities", "jacobian", "probabilities")
LOGARITHMS = View("log_probabilities", "jacobian", "log_probabilities")
MIXED = View("probabilities", "jacobian", "logits")
PRODUCTS = View(explanation="input_x_gradient")
TOP = View("top", "top")
ONE = View("probabilities", "top")
ONE_ODDS = View("probabilities", "top", "probabilities")
ALONE = View("probabilities", "none")
INTEGRATED = View(explanation="integrated_gradients")
SMOOTH = View(explanation="smoothgrad")


class Shape(NamedTuple):
    """A victim: inputs (0: those of the images it is trained on), hidden units, outputs, runs."""

    dim: int
    width: int
    outputs: int
    runs: int


class Service(NamedTuple):
    """What is shown, of which victims, and where they may be asked."""

    view: View
    shapes: tuple[Shape, ...]
    box: tuple[float, float] | None = None


SMALL = (Shape(20, 16, 4, 20), Shape(100, 64, 10, 10), Shape(10, 40, 4, 20))
MEANS = (Shape(0, 64, 10, 3), Shape(784, 64, 10, 20), Shape(100, 64, 10, 20))
FEW_OUTPUTS = (Shape(20, 16, 1, 20), Shape(20, 16, 2, 20), Shape(20, 16, 3, 20))
SERVICES = (
    Service(LOGITS, tuple(Shape(0, h, 10, 3) for h in (32, 128, 512, 1024))),
    Service(ODDS, (*(Shape(0, h, 10, 3) for h in (64, 512)), *SMALL, *FEW_OUTPUTS)),
    Service(TOP, (Shape(0, 64, 10, 3), Shape(20, 16, 4, 20), Shape(100, 64, 10, 10))),
    Service(ONE, (Shape(0, 64, 10, 3), Shape(20, 16, 4, 20), Shape(100, 64, 10, 10))),
    Service(ONE_ODDS, (Shape(0, 64, 10, 3), Shape(20, 16, 4, 20), Shape(100, 64, 10, 10))),
    Service(ALONE, (Shape(10, 20, 3, 10), Shape(20, 16, 4, 10))),
    Service(View("values", "none"), (Shape(10, 20, 1, 10),)),
    Service(PRODUCTS, (Shape(0, 64, 10, 3), *SMALL)),
    Service(MIXED, SMALL),
    Service(LOGARITHMS, (*SMALL, *FEW_OUTPUTS)),
    Service(LOGITS, (*SMALL, *FEW_OUTPUTS), (0.0, 1.0)),
    Service(ODDS, SMALL, (0.0, 1.0)),
    Service(INTEGRATED, (*MEANS, *SMALL[::2], *FEW_OUTPUTS)),
    Service(SMOOTH, (*MEANS, *SMALL[::2], *FEW_OUTPUTS)),
)


@dataclass(frozen=True)
class Views(Measured):
    """Exact recovery through what services show: probabilities, one class, no gradient, boxes.

    Claim:   our own: what the softmax hides is one number, the same for all logits; behind it
             networks come out exactly, at nearly the price of logits.
    Time:    12 minutes on 1 CPU core.
    Expect:  all exact (but for what no query inside a box can show), none wrong with `ok`; at most
             1.5 queries a unit for networks trained on images.

    The victim answers on the host, in float64.  The width is not told, and the number of classes
    where only the top one is shown.  worst_error: of logits
    less their mean (of single ones as they are), relative to the largest, over 10,000 N(0, I)
    inputs, or uniform ones of the box, and the test images; agreement: of labels, on the same.
    """

    shown: ClassVar[tuple[str, ...]] = columns(
        "victim dim width outputs view box runs ok wrong agreement worst_error queries_per_unit "
        "queries_per_unit_max"
    )
    dataset: str = "mnist"
    services: tuple[Service, ...] = SERVICES
    points: int = 10_000
    seed: int = 0

    def small(self) -> Views:
        """On digits, a narrow victim of every other kind."""
        few = tuple(
            Service(view, tuple(shape._replace(width=6, runs=1) for shape in shapes[:1]), box)
            for view, shapes, box in self.services[::2]
        )
        return replace(self, dataset="digits", services=few, points=1_000)

    def rows(self) -> Iterator[Row]:
        """One a service and shape."""
        images = data.load(self.dataset)

        @cache  # services are asked about the same victims
        def trained(seed: tuple[int, ...], width: int) -> TwoLayer:
            key = jax.random.wrap_key_data(jnp.array(seed, jnp.uint32))
            return victims.image_classifier(key, images, width).network

        for service in self.services:
            for shape in service.shapes:
                yield self._cell(service, shape, images, trained)

    def _cell(self, service: Service, shape: Shape, images: data.Dataset, trained: Trained) -> Row:
        queries, errors, agreements, wrong = list[float](), list[float](), list[float](), 0
        for key in jax.random.split(jax.random.key(self.seed), shape.runs):
            victim_key, attack_key = jax.random.split(key)
            victim = _drawn(victim_key, shape, trained)
            dim = victim.rows.shape[1]
            oracle = host(victim, service.view)
            classes = shape.outputs if service.view == TOP else None
            got = exact.recover(oracle, dim=dim, key=attack_key, box=service.box, classes=classes)
            queries.append(got.cost.queries / shape.width)
            if got.ok:
                rng = np.random.default_rng(len(queries))
                low, high = service.box or (0.0, 0.0)
                x = rng.uniform(low, high, (self.points, dim))
                x = rng.standard_normal((self.points, dim)) if service.box is None else x
                x = x if shape.dim else np.concatenate([x, images.test.x])
                error, same = apart(got.network, victim, x)
                errors.append(error)
                agreements.append(same)
                wrong += error > WRONG
        return {
            "victim": "random" if shape.dim else images.name,
            "dim": dim,
            "width": shape.width,
            "outputs": shape.outputs,
            "view": str(service.view),
            "box": None if service.box is None else str(service.box),
            "runs": shape.runs,
            "ok": len(errors),
            "wrong": wrong,
            "agreement": min(agreements, default=None),
            "worst_error": max(errors, default=None),
            "queries_per_unit": float(np.mean(queries)),
            "queries_per_unit_max": max(queries),
        }


def host(victim: TwoLayer, view: View) -> oracles.HostOracle:
    """The victim as a service outside of JAX would answer, in float64."""
    inner = oracles.from_jax(TwoLayer.__call__, victim, view)  # one function: compiled once
    return oracles.from_host(
        lambda x: tuple(oracles.ask(inner, x, chunk=oracles.CHUNK)[0]), view=view
    )


def apart(network: Network | None, victim: TwoLayer, x: np.ndarray) -> tuple[float, float]:
    """The worst error of centred logits relative to the largest, and the share of equal labels."""
    assert network is not None
    found, true = (np.asarray(net(x)) for net in (network, victim))
    alone = true.shape[1] == 1
    same = (found > 0) == (true > 0) if alone else found.argmax(1) == true.argmax(1)
    seen = np.isfinite(found).all(0)  # of classes that are never on top nothing is known
    found, true = found[:, seen], true[:, seen]
    if seen.all() and not alone:
        found, true = (a - a.mean(1)[:, None] for a in (found, true))
    return float(np.abs(found - true).max() / np.abs(true).max()), float(same.mean())


def _drawn(key: Any, shape: Shape, trained: Trained) -> TwoLayer:
    seed = np.asarray(jax.random.key_data(key))
    if not shape.dim:
        return trained(tuple(seed.tolist()), shape.width)
    rng = np.random.default_rng(seed)
    d, h, k = shape[:3]
    rows, weights = rng.standard_normal((h, d)), rng.standard_normal((k, h))
    bias, offset = 0.5 * rng.standard_normal(h), 0.3 * rng.standard_normal(k)
    none = np.zeros((k, d))
    return TwoLayer(rows / d**0.5, bias, 2 * weights / h**0.5, none, offset)
