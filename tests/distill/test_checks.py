"""What cannot be trained is refused with a sentence, before the first step."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from small import DIM, MLP, OUTPUTS

from recon import distill
from recon.distill import Bank, Hyper
from recon.distill import hyper as hypers_


def outside(meta):
    """Values a setting cannot have, from its metadata."""
    if meta["choices"] is not None:
        return ["other", 3]
    below = meta["least"] if meta["above"] else meta["least"] - 1
    wrong = [below, np.nan, np.inf, -np.inf, "1", 1j, True] + [None] * (not meta["optional"])
    return wrong + [2.5] * meta["whole"]


@pytest.mark.parametrize("f", dataclasses.fields(Hyper), ids=lambda f: f.name)
def test_every_setting_is_held_to_what_it_declares(curved, f):
    for value in outside(f.metadata):
        sentence = f"{f.name} must be {hypers_.describe(f.name)}, got"
        with pytest.raises(ValueError, match=re.escape(sentence)):
            distill.train(jax.random.key(23), Hyper(**{f.name: value}), curved, MLP)
    if f.metadata["choices"] is None:
        with pytest.raises(ValueError, match=rf"{f.name} has shape \(2,\), expected one value"):
            distill.train(jax.random.key(23), Hyper(**{f.name: np.ones(2)}), curved, MLP)
        assert not hypers_.refusal(f.name, f.metadata["least"] + 1)
    assert not hypers_.refusal(f.name, getattr(Hyper(), f.name))
    assert f.metadata["doc"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 13}, "budget of 13 queries is more than the 12 of the bank"),
        ({"loss": "top"}, r"needs gradients \(N, d\)"),
        ({"temperature": 0.5}, r"needs a student with masks that have one \(its `surrogate`\)"),
        ({"unlabelled": 4}, "unlabelled inputs need a bank that holds some"),
    ],
)
def test_settings_that_do_not_fit_are_refused(curved, change, message):
    plain = dataclasses.replace(MLP, surrogate=None)
    with pytest.raises(ValueError, match=message):
        distill.train(jax.random.key(23), Hyper(**change), curved, plain)


def test_other_misuse_is_refused(curved):
    keys = jax.random.split(jax.random.key(24), 2)
    for none in (keys[:0], keys[0]):
        with pytest.raises(ValueError, match="needs one key a run, got none"):
            distill.train_many(none, Hyper(), curved, MLP)
    with pytest.raises(ValueError, match="no mapper 'map'; there are vmap, loop"):
        distill.train_many(keys, Hyper(), curved, MLP, mapper="map")
    plain = Bank(curved.x, curved.probabilities, None, curved.label)
    with pytest.raises(ValueError, match="the bank has None"):
        distill.train(keys[0], Hyper(), plain, MLP)
    with pytest.raises(ValueError, match="measure must be a whole number of at least 0, got -1"):
        distill.train(keys[0], Hyper(), curved, MLP, measure=-1)
    run = distill.train(keys[0], Hyper(loss="membership", steps=3), plain, MLP)
    assert run.ok
    assert not np.any(run.curves["gradient"])


def test_shapes_that_do_not_fit_are_refused(curved, probe):
    key, hyper = jax.random.key(41), Hyper(steps=2)
    wider = distill.student("mlp", DIM, OUTPUTS + 1, width=8)
    with pytest.raises(ValueError, match=r"outputs have shape \(12, 4\), the victim's \(12"):
        distill.train(key, hyper, curved, wider)
    for change, message in (
        ({"gradient": curved.gradient[:, :, 1:]}, r"gradients have shape \(12, 3, 5\), expected"),
        ({"gradient": curved.gradient[:, 1:]}, r"gradients have shape \(12, 2, 6\), expected"),
        ({"label": curved.label[1:]}, r"labels have shape \(11,\), expected \(12,\)"),
        ({"x": curved.x[1:]}, r"queries have shape \(11, 6\), expected \(12, 6\)"),
        ({"unlabelled": curved.x[:, 1:]}, r"unlabelled inputs have shape \(12, 5\)"),
        ({"unlabelled": curved.x[:0]}, r"unlabelled inputs have shape \(0, 6\)"),
        ({"label": curved.label + 1}, r"labels are not all in 0 \.\.\. 2"),
        (
            {"probabilities": curved.label},
            r"the victim's outputs have shape \(12,\), expected two axes",
        ),
    ):
        broken = dataclasses.replace(curved, **change)
        with pytest.raises(ValueError, match=message):
            distill.train(key, dataclasses.replace(hyper, budget=5), broken, MLP)
    for change, message in (
        ({"x": probe.x[:, 1:]}, r"probe inputs have shape \(50, 5\)"),
        ({"y": probe.y[1:]}, r"probe labels have shape \(49,\)"),
        ({"victim": probe.victim[1:]}, r"probe classes have shape \(49,\)"),
        ({"x": probe.x[:0]}, r"probe inputs have shape \(0, 6\)"),
    ):
        with pytest.raises(ValueError, match=message):
            distill.train(key, hyper, curved, MLP, probe._replace(**change))
