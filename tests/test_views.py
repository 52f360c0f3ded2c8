"""What a service declares: every view of a JAX victim, and of the same one on the host."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon import oracles
from recon.explanations import EXPLANATIONS, OUTPUTS
from recon.oracles import Cost, ReplyError, View, ViewError


def victim(p, x):
    return jnp.sin(p @ x) * jnp.arange(1.0, 4.0)


def shown(view, x, outputs=3):
    """Values and explanations of `victim` by hand, in float64 NumPy."""
    p = np.asarray(P, np.float64)[:outputs]
    scale = np.arange(1.0, 4.0)[:outputs]
    logits = np.sin(x @ p.T) * scale
    if outputs == 1:
        odds = 1 / (1 + np.exp(-logits))
        label = (logits > 0).astype(int)
    else:
        odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        label = logits.argmax(1)[:, None]
    rows = (np.cos(x @ p.T) * scale)[..., None] * p
    value = {"logits": logits, "values": logits, "probabilities": odds, "label": label}
    value |= {"log_probabilities": np.log(odds), "none": None}
    value["top"] = np.stack([logits.argmax(1), logits.max(1)], 1)
    if view.of != "logits":  # the chain rule: d log p = J - sum p J, or (1 - p) J of one logit
        mean = odds[..., None] * rows
        change = rows - (mean if outputs == 1 else mean.sum(1, keepdims=True))
        rows = change if view.of == "log_probabilities" else odds[..., None] * change
    top = rows[np.arange(len(x)), {"probabilities": odds}.get(view.of, logits).argmax(1)]
    return value[view.outputs], {"jacobian": rows, "top": top, "none": None}[view.explanation]


P = jax.random.normal(jax.random.key(3), (3, 4))
VIEWS = [
    View(outputs, explanation, of)
    for outputs in OUTPUTS
    for explanation in ("jacobian", "top", "none")
    for of in ("logits", "probabilities", "log_probabilities")
    if (outputs, explanation) != ("none", "none") and not (outputs == "values" and of != "logits")
]


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_every_view_of_a_jax_victim_is_what_it_says_and_passes_the_checks_on_the_host(view):
    x = np.asarray(jax.random.normal(jax.random.key(4), (5, 4)))
    expected = shown(view, x)
    host = oracles.from_host(lambda x: shown(view, x), view=view)
    for oracle in (oracles.from_jax(victim, P, view), host):
        reply, cost = oracles.ask(oracle, x, chunk=2)
        for got, want in zip(reply, expected, strict=True):
            assert (got is None) == (want is None)
            if want is not None:
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        numbers = sum(part.size for part in expected if part is not None)
        kind = (5, 0) if view.axes else (0, 5)
        assert cost == Cost(*kind, numbers, rounds=3)


@pytest.mark.parametrize("outputs", ["probabilities", "log_probabilities", "label", "top"])
def test_one_logit_is_a_binary_classifier(outputs):
    x = np.asarray(jax.random.normal(jax.random.key(4), (5, 4)))
    view = View(outputs, of="probabilities")
    reply, _ = oracles.ask(oracles.from_jax(victim_of_one, P, view), x)
    for got, want in zip(reply, shown(view, x, 1), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def victim_of_one(p, x):
    return victim(p, x)[:1]


def test_the_noise_of_a_row_is_its_own_and_the_services():
    x = jax.random.normal(jax.random.key(4), (7, 4))
    oracle = oracles.from_jax(victim, P, View(explanation="smoothgrad"), key=5)
    whole = oracles.ask(oracle, x)[0].gradient
    for i, row in enumerate(x):
        by_hand = EXPLANATIONS["smoothgrad"](
            partial(victim, P), row, jax.random.fold_in(jax.random.key(5), i)
        )
        np.testing.assert_allclose(whole[i], by_hand, rtol=1e-5, atol=1e-6)
    parts = [oracles.ask(oracle, x[i : i + 2], first=i)[0].gradient for i in range(0, 7, 2)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)
    other = oracles.from_jax(victim, P, View(explanation="smoothgrad"), key=6)
    assert np.abs(oracles.ask(other, x)[0].gradient - whole).max() > 0.01


@pytest.mark.parametrize(
    ("view", "value", "message"),
    [
        (View("probabilities", "none"), [[0.5, 0.5], [2.0, -1.0]], "row 6: .* are these logits"),
        (View("probabilities", "none"), [[0.5, 0.5], [0.9, 0.9]], "row 6: .* do not sum to 1"),
        (View("probabilities", "none"), [[0.5], [1.5]], "row 6: .* above 1"),
        (View("log_probabilities", "none"), [[0.0, -9.0], [0.0, 0.0]], "row 6: .*not sum to 1"),
        (View("label", "none"), [[1], [0.5]], "row 6: a label is one whole number"),
        (View("label", "none"), [[1, 0], [0, 1]], "row 5: a label is one whole number"),
        (View("top", "none"), [[1, 0.3], [0.5, 2.0]], "row 6: a label, a whole number"),
        (View("top", "none"), [[1, 0.3], [-1, 2.0]], "row 6: a label, a whole number"),
        (View("top", "none"), [[1], [0]], "row 5: a label, .* and its logit are expected"),
        (View("top", "none"), [[1, np.nan], [0, 1]], "row 5: the value is not finite"),
    ],
)
def test_values_that_are_not_what_the_view_says_are_named(view, value, message):
    with pytest.raises(ReplyError, match=message):
        oracles.ask(oracles.from_host(lambda x: value, view=view), np.ones((2, 3)), first=5)


def test_views_that_make_no_sense_and_methods_that_cannot_use_one_say_so():
    for words, message in (
        ({"outputs": "odds"}, "a view has no outputs 'odds'; there are logits, values"),
        ({"explanation": "lime"}, "no explanation 'lime'; there are jacobian"),
        ({"of": "label"}, "no of 'label'; there are logits, probabilities, log_probabilities"),
        ({"outputs": "none", "explanation": "none"}, "neither outputs nor an explanation"),
        ({"outputs": "values", "of": "probabilities"}, "a regression has no probabilities"),
    ):
        with pytest.raises(ViewError, match=message):
            View(**words)
    oracle = oracles.from_jax(victim, P, View("label", "top"))
    oracles.need(oracle, outputs="label", explanation=("jacobian", "top"), of="logits")
    for words, message in (
        (
            {"outputs": ("logits", "values")},
            "this needs outputs logits or values; .* is label, top",
        ),
        ({"explanation": "jacobian"}, "needs explanation jacobian; .* top of logits"),
        ({"of": "probabilities"}, "needs of probabilities"),
    ):
        with pytest.raises(ViewError, match=message):
            oracles.need(oracle, **words)
