"""The paper's experiments on CIFAR-10: rows of the same measurement as those on MNIST.

VGG11 and ResNet-18 take CPU hours, so their cells are few, and ResNet-18 has half its channels:
`--full` asks for the rest, on an accelerator.  The first panels and budgets show the claim, so
that rows of a part of the cells are a figure already.
"""

from __future__ import annotations

from recon.experiments.rebuild import Panel, Rebuild

BUDGETS = (10, 100, 1_000)
MORE = (*BUDGETS, 10_000)
CONV = (
    Panel("conv", BUDGETS, replies=("gradient",), seeds=(10, 3, 3)),
    Panel("conv", MORE, replies=("membership",), seeds=3),
)
DEEP = tuple(
    panel
    for victim in ("vgg11", "resnet18-half")
    for panel in (
        Panel(victim, BUDGETS, replies=("gradient",), seeds=1),
        Panel(victim, MORE[-2:], replies=("membership",), seeds=1),
    )
)

FIGURE2 = Rebuild(
    """Figure 2 on CIFAR-10: the student is of the victim's class, the queries are images.

    Claim:   convolutional: 100 gradient queries do what 10,000 membership queries do; VGG11 and
             ResNet-18 reach 75 % with 10 times fewer; SmoothGrad makes practically no difference
             (section 5.1).
    Time:    5 hours on 2 CPU cores, most of it for VGG11 and ResNet-18; a run that is killed
             goes on.
    Expect:  a hundred gradient queries rebuild the convolutional network.

    Victims are trained on shifted and mirrored images (`victims.schedule`).
    """,
    panels=(
        *CONV,
        Panel("conv", BUDGETS[:2], replies=("smoothgrad", "top"), seeds=2),
        Panel("conv", BUDGETS[:2], ("smoothed",), ("smoothgrad",), seeds=2),
        Panel("conv", (10,), ("unlabelled",), ("gradient",), seeds=2),
        *DEEP,
        Panel("vgg11", (100,), replies=("smoothgrad", "top"), seeds=1),
        Panel("resnet18-half", (100,), replies=("smoothgrad", "top"), seeds=1),
    ),
    dataset="cifar10",
    small_steps=100,
)

FIGURE3 = Rebuild(
    """Figure 3 on CIFAR-10: the student is of another class than the victim.

    Claim:   10 times fewer gradient than membership queries rebuild ResNet-18 with VGG11; they
             help very little the other way round (section 5.2).
    Time:    3 hours on 2 CPU cores; a run that is killed goes on.
    Expect:  both students stay below those of the victim's own class.
    """,
    panels=tuple(
        panel._replace(student={"vgg11": "resnet18-half"}.get(panel.victim, "vgg11"))
        for panel in DEEP
    ),
    dataset="cifar10",
    small_steps=100,
)

FIGURE4 = Rebuild(
    """Figure 4 on CIFAR-10: the queries are x ~ N(0, I_d), not images.

    Claim:   convolutional: 50 % from 10 gradient queries, 11 % from 10,000 membership queries;
             for VGG11 and ResNet-18 both do badly (section 5.3).
    Time:    3 hours on 2 CPU cores; a run that is killed goes on.
    Expect:  membership queries of noise show next to nothing; noise of the mean and deviation of
             the pixels, ours, shows more.
    """,
    panels=(
        Panel("conv", BUDGETS[:2], replies=("gradient",), seeds=(5, 2)),
        Panel("conv", (1_000, 10_000), replies=("membership",), seeds=2),
        Panel("conv", BUDGETS[:2], (), ("gradient",), (5, 2), queries=("standardised",)),
        *DEEP,
    ),
    queries=("gaussian",),
    dataset="cifar10",
    small_steps=100,
)

CIFAR10 = {"fig2-cifar10": FIGURE2, "fig3-cifar10": FIGURE3, "fig4-cifar10": FIGURE4}
