"""The page a person reads, from the facts of a report alone."""

from __future__ import annotations

import math
from typing import Any

Facts = dict[str, Any]

METHODS = {
    "tangent": "our attack on gradients (`exact.recover`)",
    "bisect": "Algorithm 1 of the paper, as printed",
    "membership": "the paper's membership form, which asks for values alone",
}
PAPER_OF_DEEP = (
    "Algorithm 1 of Milli et al. (2019) and its membership form are for one hidden layer: there is "
    "nothing to compare."
)
NEXT = {
    "BUDGET": [
        "Allow more queries: `--budget`, or leave it out. A model that fits takes about two "
        "gradient queries a hidden unit, one that does not some 30,000 queries at most.",
    ],
    "CONVOLUTIONS": [
        "The kernels are found and not what follows them: rebuild the rest by matching gradients, "
        "`recon.distill`.",
    ],
    "UNCERTIFIED": [
        "Is it a ReLU network of dense layers (no other curves)? Others are not for this attack.",
        "Give inputs of your own, `--data`: queries are then spread as they are.",
        "Ask the model in float64 (PyTorch: `net.double()`), or try another `--seed`.",
    ],
    "NOISY": [
        "Look for what makes two equal questions differ: dropout left on, noise added to "
        "explanations, a service that rounds. Switch it off to see what the model itself leaks.",
        "Is it a ReLU network of dense layers? Units of GELU, tanh and sigmoid are not for this "
        "attack.",
    ],
    "UNFIT": ["Do what the sentence above says, then run the attack again."],
    "SEARCH_FAILED": ["Try another `--seed`, a smaller `--delta` or a smaller `--separation`."],
    "UNSOLVED": [
        "The paper's methods need no more units than inputs, and rows that are independent; the "
        "method `tangent` does not.",
    ],
}


def markdown(facts: Facts) -> str:
    """The report in Markdown: what it means first, then how it is known."""
    parts = _recovered(facts) if facts["ok"] else _failed(facts)
    title = f"# What {facts['name']} gives away"
    return "\n\n".join([title, *(part for part in parts if part)]) + "\n"


# --- The model was recovered -------------------------------------------------------------------


def _recovered(facts: Facts) -> list[str]:
    picture = "![Queries of this attack beside others; errors of the copy](figure.png)"
    return [
        "## What this means",
        _meaning(facts),
        "## What it took",
        _table(facts),
        _explained(facts),
        picture if facts["figure"] else "",
        "## How sure this is",
        _certificate(facts),
        "## How the copy was derived",
        _derived(facts),
        "## Files",
        _files(facts),
    ]


def _meaning(facts: Facts) -> str:
    values = facts["method"] == "membership"
    asked = "outputs alone" if values else "outputs and their gradients"
    lines = [
        f"**The model can be copied.** Whoever may ask it for {asked} can have a network that "
        f"answers as it does. It took {facts['queries']:,} queries.",
    ]
    if facts["max_error"] is not None:
        lines.append(_agreement(facts))
    else:
        lines.append(
            "Copy and model were not held against each other at inputs apart from the attack: the "
            "model does not show every output."
        )
    lines.append(
        "The copy was checked on queries that the attack had not used. It lies beside this page: "
        "guard it as you guard the model."
    )
    if values:
        lines.append("Hiding the gradients does not stop this attack: it does not use them.")
    else:
        lines.append(
            "What stops this attack: to show no gradients, or only noisy ones, or fewer than four "
            "digits of them. It does not stop every attack: outputs alone can suffice, and a model "
            "trained on a few gradients comes near. A limit on queries helps only below the "
            f"{facts['queries']:,} that this took."
        )
    return _list(lines)


def _agreement(facts: Facts) -> str:
    whose = "inputs of yours" if facts["own"] else "standard normal inputs"
    text = f"At {facts['checked']:,} {whose} the copy is off by at most {facts['max_error']:.1g}"
    text += " of the model's typical output (its root mean square there)"
    if facts["same"] is not None:
        text += f", and the largest output is the same at {_percent(facts['same'])}"
    return text + ". These inputs were asked apart from the attack, and are not in its count."


def _percent(share: float) -> str:
    """Never rounded up to all."""
    return "all of them" if share == 1 else f"{math.floor(1000 * share) / 10:g} % of them"


def _table(facts: Facts) -> str:
    price, units = facts["price"], facts["width"]
    head = ["", "queries", "a hidden unit", "how this is known"]
    head += [] if price is None else [f"at {price:g} a query"]
    lines = [head, ["---", "---:", "---:", "---", *(["---:"] if price is not None else [])]]
    for k, row in enumerate(facts["comparison"]):
        known = row["known"]
        about = "about " if known == "computed" else ""
        if k >= 2 and facts["undefined"]:
            known += "; not defined for this model"
        if not row["queries"]:
            continue
        line = [row["what"], f"{about}{row['queries']:,}"]
        line += [f"{row['queries'] / units:.3g}" if units else "", known]
        lines.append(line + ([] if price is None else [f"{about}{price * row['queries']:,.2f}"]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _explained(facts: Facts) -> str:
    lines = [
        f"This attack: {METHODS[facts['method']]}; {facts['gradients']:,} answers with gradients, "
        f"{facts['values']:,} with outputs alone, the checks included.",
    ]
    if len(facts["widths"]) > 1:
        lines += [_floor_of_deep(facts), PAPER_OF_DEEP]
    elif facts["width"]:
        lines.append(
            "The floor: a hidden unit has a row of as many numbers as the model has inputs, and "
            "one gradient has as many. So by counting, a model of one output takes about as many "
            "gradients as it has units, at least."
            + (
                ""
                if facts["outputs"] == 1
                else f" Yours answers {facts['outputs']} gradients at once; counting alone would "
                "allow fewer questions, and the floor is a yardstick."
            )
        )
        lines.append(_paper(facts))
    lines.append(
        f"In all {facts['numbers']:,} numbers were received, in {facts['rounds']:,} rounds one "
        f"after the other{_seconds(facts)}; the copy itself has {facts['network_numbers']:,} "
        "numbers."
    )
    return _list(lines)


def _floor_of_deep(facts: Facts) -> str:
    return (
        f"The floor: the copy has {facts['network_numbers']:,} numbers, one for each hidden unit "
        f"is a scale that changes no answer, and an answer with its gradient has "
        f"{facts['dim'] + 1:,}. So by counting, a model of one output takes about as many answers "
        "as that divides into, at least."
        + (
            ""
            if facts["outputs"] == 1
            else f" Yours answers {facts['outputs']} gradients at once, and the floor is a "
            "yardstick."
        )
    )


def _paper(facts: Facts) -> str:
    ran = any(row["known"].startswith("measured") for row in facts["comparison"][2:])
    text = (
        "Algorithm 1 is the attack of Milli et al. (2019); its membership form asks for outputs "
        "alone. "
    )
    if facts["undefined"]:
        reasons = facts["undefined"]
        text += (
            f"They are not defined for this model, which has {_and(reasons)}: the counts are what "
            "a model of one output, without biases and with as many units would take. "
        )
    if ran:
        return text + "Both were run on the model, for this report."
    return text + (
        "The counts are computed from the paper's constants (failure in one case of twenty, rows "
        "0.1 apart), not measured; where we ran them, they agreed to within an eighth."
    )


def _seconds(facts: Facts) -> str:
    return "" if facts["seconds"] is None else f" and {facts['seconds']:.3g} seconds"


def _certificate(facts: Facts) -> str:
    typical = "typical output" if facts["method"] == "tangent" else "largest output seen"
    lines = [
        f"The certificate: on fresh queries, the copy was off by at most "
        f"{facts['certificate']:.1g} of the model's {typical}.",
    ]
    if facts["promise"] is not None:
        lines.append(
            f"The promise: at {_where(facts)}, the error is at most "
            f"{facts['promise']:.2g} of the typical output. That is half of the digits the model "
            "answers with. No fresh query, near or far, deviated by more than rounding explains."
        )
    lines.append(
        "The limit of any such check: a part of the model that no query met cannot be seen by "
        "anybody, and the copy lacks it."
    )
    return _list(lines)


def _where(facts: Facts) -> str:
    """Which inputs the promise is for."""
    if facts["box"] is not None:
        return "random inputs in the box" + " and inputs like yours" * facts["own"]
    if facts["own"]:
        return "random inputs with the means and spreads of yours, and inputs like yours"
    return "standard normal inputs (of inputs on very different scales: once these are scaled)"


def _derived(facts: Facts) -> str:
    lines = [f"The model shows: {facts['view']}."]
    if facts["note"]:
        lines.append(facts["note"])
    if facts["hides"]:
        lines.append(
            "Probabilities hide what all logits have in common. The copy gives logits less their "
            "mean (of one output: the logit): the same probabilities and the same labels."
        )
    if facts["box"] is not None:
        low, high = facts["box"]
        lines.append(f"No query left the box from {low:g} to {high:g}.")
    if facts["eps"] is not None:
        digits = math.floor(-math.log10(facts["eps"]))
        lines.append(f"The answers have about {digits} digits (rounding unit {facts['eps']:.2g}).")
    return _list([*lines, _found(facts)])


def _found(facts: Facts) -> str:
    if not facts["width"]:
        return "Found: a linear model. Its gradient was the same at every query."
    if len(facts["widths"]) > 1:
        return _found_deep(facts)
    parts = [f"{facts['width']:,} hidden units"] + ["biases"] * facts["biases"]
    if facts["linear"]:
        parts.append("a linear part (of units that never switch, or whose side is not told)")
    return (
        f"Found: {_and(parts)}. Where the gradient changes, a unit switches; by how much it "
        "changes is the unit's row times its weights. Units are known up to their order and scale "
        "(rows have length one), which changes no answer."
    )


def _found_deep(facts: Facts) -> str:
    layers = _and([f"{width:,}" for width in facts["widths"]])
    biases = ", and biases" * facts["biases"]
    return (
        f"Found: hidden layers of {layers} units{biases}. Where the gradient changes, a unit "
        "switches. The inputs where a unit of the first layer does lie on a plane; those of a "
        "later unit on a surface that bends where it meets a layer before, which tells the layers "
        "apart. "
        "The units of a layer are known up to their order and scale, which changes no answer."
    )


def _files(facts: Facts) -> str:
    lines = [f"`{name}`: {what}" for name, what in facts["files"].items()]
    lines.append("`report.json`: every number of this page.")
    if len(facts["widths"]) == 1:
        lines.append(
            "In them every unit is on the side on which it is off near the origin, and what that "
            "leaves is in `slope`; models of other libraries have two units for each rank of it."
        )
    lines += [f"Not written: {text}, which is not installed." for text in facts["missing"]]
    return _list(lines)


# --- It was not ---------------------------------------------------------------------------------


def _failed(facts: Facts) -> list[str]:
    cost = "" if facts["price"] is None else f", {facts['price'] * facts['queries']:,.2f} in all"
    meaning = [
        "**This attack did not recover the model.** No copy was written.",
        f"Why: {facts['message']}",
        "That is no proof that the model is safe: this was one attack, with these settings. A "
        "model trained on a few answers (README, Rebuild a classifier) can still come near.",
    ]
    steps = NEXT.get(facts["status"], ["Try another `--seed`."])
    took = (
        f"{facts['queries']:,} queries{cost}: {facts['gradients']:,} with gradients, "
        f"{facts['values']:,} of outputs alone, {facts['numbers']:,} numbers received in "
        f"{facts['rounds']:,} rounds{_seconds(facts)}. The attack: {METHODS[facts['method']]}. "
        f"The model shows: {facts['view']}. {facts['note']}"
    )
    parts = ["## What this means", _list(meaning), "## What to try next", _list(steps)]
    return [*parts, "## What it took", took.strip()]


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _and(parts: list[str]) -> str:
    *rest, last = parts
    return f"{', '.join(rest)} and {last}" if rest else last
