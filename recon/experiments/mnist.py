"""The paper's experiments on MNIST, and ours beside them: rows of one measurement.

Every table that shows conv after ten gradient queries shows the same cells: same victim, same
draws, same settings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from recon.experiments.common import Row
from recon.experiments.filters import Filters
from recon.experiments.rebuild import SHOWN, Panel, Rebuild

SEEDS = (5, 10, 5, 5, 5)  # of BUDGETS: what ten queries give varies most with the draw
FEWER = (3, 10, 3, 3, 3)  # the same where a student takes a minute
LINEAR, MLP, CONV = Panel("linear"), Panel("mlp", seeds=SEEDS), Panel("conv", seeds=FEWER)


@dataclass(frozen=True)
class Ablation(Rebuild):
    """`Rebuild` with the gain of every recipe over the plain one, seed by seed."""

    columns: ClassVar[tuple[str, ...]] = (*SHOWN[:9], "gain", *SHOWN[9:])

    def summary(self, rows: list[Row]) -> list[Row]:
        """As that of `Rebuild`; gain: the mean of the differences in accuracy on the same seeds."""
        few = super().summary(rows)
        names = tuple(name for name in self.by if name != "recipe")

        def accuracies(of: Row, recipe: str) -> dict[int, float]:
            mine = [r for r in rows if r["recipe"] == recipe and r["failure"] is None]
            mine = [r for r in mine if all(r[name] == of[name] for name in names)]
            return {r["seed"]: r["accuracy"] for r in mine}

        for row in few:
            plain, own = accuracies(row, "plain"), accuracies(row, row["recipe"])
            shared = [own[s] - plain[s] for s in own.keys() & plain.keys()]
            row["gain"] = float(np.mean(shared)) if shared else None
        return few


FIGURE2 = Rebuild(
    """Figure 2 on MNIST: the student is of the victim's class, the queries are images.

    Claim:   one gradient query rebuilds the one-layer network; 100 times fewer gradient than
             membership queries rebuild the two-layer network, and the convolutional one to 95 %
             (10 against 1,000); SmoothGrad makes practically no difference (section 5.1).
    Time:    60 minutes on 1 CPU core; a run that is killed goes on.
    Expect:  one-layer with one gradient query within 0.3 points of the victim, every seed;
             convolutional with ten 90 to 99 %, and with a hundred the victim itself, up to one
             answer in 400.

    "gradient" is the whole Jacobian of the logits, K d numbers; "top" the gradient of the
    largest logit alone, which services mostly return and the paper does not use.  Students of
    SmoothGrad are held against it by their plain gradients; ablation-mnist has others.
    """,
    panels=(LINEAR, MLP, CONV),
    replies=("gradient", "smoothgrad", "top", "membership"),
    recipes=("plain", "cross-entropy"),
)

FIGURE3 = Rebuild(
    """Figure 3 on MNIST: the student is of another class than the victim.

    Claim:   a two-layer student rebuilds the one-layer network from 100 times fewer gradient
             than membership queries; the reverse takes 10 times fewer at first; a convolutional
             student of the two-layer network does much better than the reverse (section 5.2).
    Time:    30 minutes on 1 CPU core; a run that is killed goes on.
    Expect:  a one-layer student stays below its two-layer victim, whatever it asks.
    """,
    panels=(
        LINEAR._replace(student="mlp"),
        MLP._replace(student="linear"),
        MLP._replace(student="conv", seeds=3),
        CONV._replace(student="mlp", seeds=3),
    ),
)

FIGURE4 = Rebuild(
    """Figure 4 on MNIST: the queries are x ~ N(0, I_d), not images.

    Claim:   at least 1,000 times fewer gradient than membership queries for the two-layer
             network; convolutional: 84 % from 10 gradient, 71 % from 10,000 membership queries
             (section 5.3).
    Time:    25 minutes on 1 CPU core; a run that is killed goes on.
    Expect:  two-layer: ten gradient queries as much as several thousand membership queries;
             convolutional: ten 70 to 80 %, below the paper's 84, which 100 reach.

    Images have pixels in [0, 1] and the queries are neither scaled nor cut to that range; the
    paper does not say how its images were scaled.
    """,
    panels=(LINEAR, MLP, CONV),
    queries=("gaussian",),
)

ABLATION = Ablation(
    """What each part of the training adds, from ten queries: ours, not the paper's.

    Claim:   none of the paper's: it does not say how a student was made to match.
    Time:    125 minutes on 1 CPU core; a run that is killed goes on.
    Expect:  without the surrogate derivative (autodiff) students of ten gradient queries are ten
             points behind, without weight decay three (two-layer) and nine (convolutional), by
             whole Jacobians one and five; unlabelled images add two to four, ensembles one at most.
             Absolute values, heat maps and integrated gradients are worth less than gradients, and
             6 to 24 points less where they are taken for such; three digits cost nothing.  Smoothed
             students of SmoothGrad gain five points (convolutional) or none (two-layer).

    One baseline, the plain students of fig2-mnist; every other recipe changes one thing:
    autodiff, no decay; the whole Jacobian matched at each step in place of a random projection;
    SmoothGrad matched by the student's own (smoothed) in place of its plain gradient; unlabelled
    images of the pool (`recon.distill.unlabelled`); eight students, of which the four that fit best
    answer (`recon.distill.ensemble`); what a service shows that is not a gradient taken for one
    (as gradients), where plain students match it by the same of their own.  "gain" compares the
    same seeds.
    """,
    panels=(
        Panel("mlp", (10,), ("plain", "autodiff", "no decay", "unlabelled"), seeds=10),
        Panel("conv", (10,), ("plain", "autodiff", "no decay", "unlabelled"), ("gradient",), 10),
        Panel("conv", (10,), ("plain", "no decay", "unlabelled"), ("membership",), seeds=3),
        Panel("mlp", (10,), ("whole Jacobian", "ensemble"), ("gradient",)),
        Panel("conv", (10,), ("whole Jacobian", "ensemble"), ("gradient",), seeds=3),
        *(Panel(of, (10,), ("smoothed",), ("smoothgrad",), 10) for of in ("mlp", "conv")),
        Panel("mlp", (10, 100), ("plain", "as gradients"), ("absolute", "heat map"), seeds=3),
        Panel("mlp", (10,), ("plain", "as gradients"), ("integrated", "three digits"), seeds=3),
    ),
)

SELECTION = Rebuild(
    """Query selection: which inputs are asked, for no query.  Ours, not the paper's.

    Claim:   the paper's: 100 times fewer gradient than membership queries rebuild the two-layer
             network, and ten the convolutional one to 95 % (section 5.1); its attacker asks about
             images as they come.
    Time:    35 minutes on 1 CPU core; a run that is killed goes on.
    Expect:  medoids and means of clusters are better than drawn images from ten queries, and
             vary less.

    The attacker holds the pool's 10,000 images without labels, makes as many clusters of them as
    it has queries, and asks about their means, which are blurred, or their medoids, the images
    nearest to these.  Ten drawn images lack three or four of the ten classes.  Seeds of medoids
    and means vary the clusters and the first weights alone.
    """,
    panels=(Panel("mlp", (10, 100), seeds=(10, 5)), Panel("conv", (10,), seeds=10)),
    queries=("pool", "medoids", "means"),
)

KNOWN = Rebuild(
    """Known layers: what ten queries leave open.  Ours, not the paper's.

    Claim:   the paper's: ten gradient queries rebuild the two-layer network as well as 100 times
             as many membership queries, and the convolutional one to 95 % (section 5.1).
    Time:    20 minutes on 1 CPU core; a run that is killed goes on.
    Expect:  the two-layer student has 97 to 98 % if it knows the hidden layer, and gains next to
             nothing if it knows the output layer: what ten images leave open is which units are
             on where.

    The student has some layers of its victim's, for no query, and learns the others.  Every
    setting of a small grid is shown: the best of them, chosen on the test images as it were, is
    an estimate from above.
    """,
    panels=(
        Panel("mlp", (10,), ("plain", "knows hidden", "knows output")),
        Panel("conv", (10,), ("plain", "knows convolutions", "knows dense layers"), seeds=3),
    ),
    replies=("gradient",),
    queries=("pool", "gaussian"),
    steps=4_000,
    grid=(("weight_decay", (0.3, 1.0)), ("temperature", (None, 0.5, 4.0))),
)

LARGE = Rebuild(
    """The larger convolutional network, 32 and 64 filters and 512 units, beside the small one.

    Claim:   the paper's for its convolutional network, of a size it does not give: 95 % from ten
             gradient or 1,000 membership queries (section 5.1).
    Time:    25 minutes on 2 CPU cores; a run that is killed goes on.
    Expect:  ten gradient queries below the small network's: ten Jacobians are 78,400 numbers, and
             it has 1,663,370 parameters.

    The settings are the untuned defaults: those of the small network make it diverge.
    """,
    panels=(Panel("conv_large", (10, 1_000), seeds=3),),
    steps=2_000,
)

FILTERS = Filters(
    """The filters of the convolutional student beside its victim's: ours, not the paper's.

    Claim:   none of the paper's: it compares answers, never weights.
    Time:    5 minutes on 1 CPU core; a run that is killed goes on.
    Expect:  ten gradient queries show eight to ten of the ten filters of the first layer, with
             cosines above 0.97, and of the twenty of the second from none to more than half, by
             the draw of the images; ten membership queries none.
    """,
    panels=(Panel("conv", (10,)),),
)

MNIST = {
    "fig2-mnist": FIGURE2,
    "fig3-mnist": FIGURE3,
    "fig4-mnist": FIGURE4,
    "ablation-mnist": ABLATION,
    "selection-mnist": SELECTION,
    "known-layers-mnist": KNOWN,
    "large-mnist": LARGE,
    "filters-mnist": FILTERS,
}
SMALL = replace(FIGURE2.small(), panels=(Panel("mlp", budgets=(1, 10, 100), seeds=2),))
