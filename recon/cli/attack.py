"""recon attack: one attack on one random network, on a model in a file, or on a service."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from rich.table import Table

from recon import exact, victims
from recon.cli import model
from recon.cli.common import console, refuse, show
from recon.cli.model import FromFile
from recon.cli.report import Reporting
from recon.cli.url import FromUrl
from recon.exact.recovery import Recovery
from recon.experiments.common import relative_error, timed
from recon.networks import Network
from recon.oracles import Oracle
from recon.reports.owner import Subject


@dataclass(frozen=True)
class Attack:
    """Recover one random network (`victims.random_network`) through its oracle alone.

    With --widths, a deep one (`victims.random_deep`), always with biases.  With --model, the model
    in a file: its sizes are its own, and the width is not told.  With --url, a service over HTTP of
    --dim inputs.
    """

    dim: int = 100
    """Inputs d of the victim."""
    width: int = 64
    """Hidden units h of the victim."""
    widths: tuple[int, ...] = ()
    """Hidden units of each layer of a deep victim, in place of --width; the attack is not told."""
    outputs: int = 1
    """Outputs K of the victim."""
    bias: bool = False
    """Give the victim hidden and output biases."""
    seed: int = 0
    """Seed of the random victim and of the attack."""
    method: Literal["tangent", "bisect", "membership"] = "tangent"
    """tangent: ours; bisect: Algorithm 1 as printed; membership: Appendix C, values alone."""
    width_known: bool = True
    """Tell the attack the width; bisect and membership cannot do without."""
    budget: int | None = None
    """Most queries to ask."""
    delta: float = 0.05
    """bisect, membership: failure probability asked for."""
    separation: float = 0.1
    """bisect, membership: the assumed c, |<A_i, A_j>| <= 1 - c."""
    json: bool = False
    """Print one JSON object, nothing else."""
    out: Path | None = None
    """Save the recovered network here, as .npz."""
    file: tyro.conf.OmitArgPrefixes[FromFile] = field(default_factory=FromFile)
    reporting: tyro.conf.OmitArgPrefixes[Reporting] = field(default_factory=Reporting)
    service: tyro.conf.OmitArgPrefixes[FromUrl] = field(default_factory=FromUrl)

    def run(self) -> tuple[dict[str, Any], Recovery, Subject]:
        """What a person reads, flat, the recovery, and what a report needs besides; ValueError for
        what no attack takes.

        seconds is the whole attack, with what it compiles; max_error is `relative_error` over
        10,000 points, None without a network.  Of a file or a service: see `model.attacked`.
        """
        self.reporting.check()
        if self.service.given:
            self._check_service()
            data = None if self.file.data is None else model.read(self.file.data)
            return self.service.run(self.dim, self.seed, self.budget, data)
        if self.file.given:
            self._check_file()
            return self.file.run(self.seed, self.budget)
        with jax.enable_x64(True):
            victim_key, attack_key, error_key = jax.random.split(jax.random.key(self.seed), 3)
            victim = self._victim(victim_key)
            oracle = victims.oracle_of(victim)
            seconds, got = timed(lambda: self._attack(oracle, attack_key))
            x = np.asarray(jax.random.normal(error_key, (model.ROWS, self.dim)))
            subject = Subject(f"a random {self.shape} network", oracle, x, method=self.method)
            return self._summary(got, victim, error_key, seconds), got, subject

    @property
    def shape(self) -> str:
        """Inputs, hidden units and outputs."""
        return "-".join(map(str, self._sizes))

    @property
    def _sizes(self) -> tuple[int, ...]:
        return self.dim, *(self.widths or (self.width,)), self.outputs

    def _victim(self, key: Any) -> Network:
        """The random network; ValueError for sizes that make no sense."""
        if min(self._sizes) < 1:
            raise ValueError("dim, width and outputs must be at least 1")
        if not self.widths:
            return victims.random_network(key, self.dim, self.width, self.outputs, self.bias)
        for name in ("width", "bias", "width_known"):
            if getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"--{name.replace('_', '-')} is for one hidden layer")
        return victims.random_deep(key, self._sizes)

    @property
    def where(self) -> str:
        """The inputs at which a model that is not random is checked."""
        if self.file.data is not None:
            return "of your inputs"
        return "standard normal inputs" if self.service.box is None else "random inputs in the box"

    def _check_file(self) -> None:
        """ValueError for options of a file without a file, and of random networks with one."""
        if self.file.model is None:
            raise ValueError(f"--{self.file.given[0]} is for a model in a file: give --model")
        self._refuse_others("--model", ())

    def _check_service(self) -> None:
        """ValueError for options of a service without one, and of others with one."""
        if self.service.url is None:
            raise ValueError(f"--{self.service.given[0].replace('_', '-')} is for --url")
        if self.reporting.report is not None:
            raise ValueError("--report asks the model more: not for --url yet")
        for name in self.file.given:
            if name != "data":
                raise ValueError(f"--{name} is for a model in a file, not for --url")
        self._refuse_others("--url", ("dim",))

    def _refuse_others(self, victim: str, of_victim: tuple[str, ...]) -> None:
        shared = ("seed", "budget", "json", "out", "file", "service", "reporting", *of_victim)
        for setting in fields(self):
            if setting.name not in shared and getattr(self, setting.name) != setting.default:
                name = setting.name.replace("_", "-")
                raise ValueError(f"--{name} is for random networks, not for {victim}")

    def _attack(self, oracle: Oracle, key: Any) -> Recovery:
        rest: dict[str, Any] = {"budget": self.budget}
        if self.method != "tangent" and self.widths:
            raise ValueError(f"method {self.method} is for one hidden layer")
        if self.method != "tangent":
            if not self.width_known:
                raise ValueError(f"method {self.method} has to know the width")
            if self.bias:
                raise ValueError(f"method {self.method} is for networks without biases")
            rest |= {"delta": self.delta, "separation": self.separation}
        width = self.width if self.width_known and not self.widths else None
        return exact.METHODS[self.method](oracle, dim=self.dim, key=key, width=width, **rest)

    def _summary(self, got: Recovery, victim: Network, key: Any, seconds: float) -> dict[str, Any]:
        error, cost = relative_error(got.network, victim, key), asdict(got.cost)
        return {
            **{"status": got.status.name, "ok": got.ok, "message": str(got)},
            **{"method": self.method, "dim": self.dim, "width": victim.width},
            **{"widths": list(victim.widths), "outputs": self.outputs},
            **{"bias": self.bias or bool(self.widths), "seed": self.seed},
            **model.found(got.network),
            "queries": got.cost.queries,
            **cost,
            # JSON has no infinity
            "max_error": error if math.isfinite(error) else None,
            "certificate": got.certificate if math.isfinite(got.certificate) else None,
            "seconds": seconds,
        }


def described(summary: dict[str, Any]) -> dict[str, str]:
    """The lines a person reads of a `summary`."""

    def number(name: str, of_what: str) -> str:
        value = summary[name]
        return "not reached" if value is None else f"{value:.2g} {of_what}"

    floor = " (floor for gradients: 1)" * (len(summary["widths"]) == 1)
    return {
        "status": summary["message"],
        "units": f"{model.units(summary)}, {summary['width']} true",
        "queries": f"{summary['queries']:,}: {summary['gradients']:,} gradients, "
        f"{summary['values']:,} values",
        "a unit": f"{summary['queries'] / summary['width']:.2f} queries{floor}",
        "numbers": f"{summary['numbers']:,} received",
        "rounds": f"{summary['rounds']:,} batches, one after the other",
        "worst error": number("max_error", "relative, over 10,000 Gaussian x"),
        "certificate": number("certificate", "relative, over fresh queries"),
        "time": f"{summary['seconds']:.3g} s, with what it compiles",
    }


def attack(argv: Sequence[str]) -> int:
    """`recon attack`."""
    settings = tyro.cli(Attack, prog="recon attack", description=Attack.__doc__, args=argv)
    file, random = settings.file, settings.file.model is None and settings.service.url is None
    victim = settings.service.url or file.model or f"a {settings.shape} network"
    try:
        with console.status(f"Attacking {victim} ..."):
            summary, recovery, subject = settings.run()
    except (ValueError, ImportError, OSError) as error:
        return refuse(error)
    if settings.json:
        print(json.dumps(summary))
    else:
        name = settings.shape if random else summary["name"]
        table = Table(title=f"{settings.method} on {name}", show_header=False)
        table.add_column(style="bold")
        table.add_column()
        lines = described(summary) if random else model.described(summary, settings.where)
        for name, text in lines.items():
            colour = "green" if summary["ok"] else "red"
            table.add_row(name, f"[{colour}]{text}[/]" if name == "status" else text)
        show(table)
    if settings.out is not None:
        if recovery.ok and recovery.network is not None:
            console.print(f"Saved {recovery.network.save(settings.out)}")
        else:
            console.print("Not saved: the network was not recovered.")
    if settings.reporting.report is not None:
        seconds = summary["seconds"]
        try:
            path = settings.reporting.write(subject, recovery, seconds, settings.seed)
        except (ValueError, OSError) as error:
            return refuse(f"No report: {error}")
        console.print(f"Wrote {path}")
    return 0 if recovery.ok else 1
