"""Students that are matched by what a service shows of its explanations, in any form."""

import re
import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from small import DIM, MLP, OUTPUTS, N

from recon import distill, explanations, oracles
from recon.distill import Hyper, losses, objective
from recon.distill.losses import Batch, Scales
from recon.oracles import View
from recon.paths import Path

VIEWS = [
    *(View(shown=shown) for shown in explanations.SHOWN),
    View(explanation="top", shown="absolute"),
    View(explanation="top", of="probabilities"),
    View(explanation="integrated_gradients", shown="digits_3"),
    View(explanation="integrated_gradients", path=Path(4, "riemann_left", 0.5)),
    View(explanation="smoothgrad", of="log_probabilities", shown="heat_map"),
]
TRUE, OTHER = map(jax.jit(MLP.init), map(jax.random.key, (2, 5)))
X = jax.random.normal(jax.random.key(3), (N, DIM))


def victim(variables, x):
    return MLP.apply(variables, x[None])[0]


def bought(view, x=X):
    return distill.buy(oracles.from_jax(victim, TRUE, view, key=0), x)


def distance(view, variables, key=4, matched=None):
    """l_G of the student with these variables, as it stands in l_J."""
    bank = bought(view)
    one = jnp.float32(1.0)
    weights, scales = jnp.full(N, 1 / N), Scales(one, one)
    batch = Batch(bank.x, bank.outputs, bank.gradient, bank.label, weights, scales, view)

    def loss(variables, key):
        return objective.joint(variables, MLP, Hyper(loss="shown"), batch, key)[1][0]

    return loss


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_the_victim_itself_shows_what_is_shown_and_nothing_else_does(view):
    """Zero but for what rounding took away, and for the noise that SmoothGrad draws anew."""
    loss = jax.jit(distance(view, TRUE))
    mine, theirs = (float(loss(of, jax.random.key(4))) for of in (TRUE, OTHER))
    size = float(jnp.mean(jnp.sum(bought(view).gradient.reshape(N, -1) ** 2, axis=1)))
    rounding = OUTPUTS * DIM * {"digits_3": 1e-6, "heat_map": 0.25}.get(view.shown, 1e-9)
    noise = 0.3 * size if view.explanation == "smoothgrad" else 0.0
    assert mine <= rounding + noise
    assert theirs > 4 * mine
    assert theirs > 0.05 * size


@pytest.mark.parametrize("view", [View(), View(explanation="integrated_gradients")], ids=str)
def test_a_combination_of_outputs_is_unbiased_for_all_of_them(view):
    explain, bank = view.explain, bought(view)
    draws = jax.jit(jax.vmap(distance(view, OTHER), (None, 0)))(
        OTHER, jax.random.split(jax.random.key(6), 3_000)
    )
    rows = jax.jit(jax.vmap(lambda x: explain(lambda z: victim(OTHER, z), x, None)))(X)
    whole = float(jnp.mean(jnp.sum((rows - bank.gradient) ** 2, axis=(1, 2))))
    error = float(draws.std()) / 3_000**0.5
    assert abs(float(draws.mean()) - whole) < 4 * error
    assert error < 0.03 * whole


def test_of_one_class_the_victims_is_explained():
    view = View(explanation="top", shown="absolute")
    bank = bought(view)
    rows = jax.jit(jax.vmap(lambda x: explanations.jacobian(lambda z: victim(OTHER, z), x)))(X)
    own = jnp.abs(rows)[jnp.arange(N), bank.label]
    assert np.any(np.asarray(MLP.apply(OTHER, X)).argmax(1) != bank.label)
    expected = float(jnp.mean(jnp.sum((own - bank.gradient) ** 2, axis=1)))
    got = float(jax.jit(distance(view, OTHER))(OTHER, jax.random.key(0)))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.fixture(scope="module")
def digits():
    """A classifier of digits: a student, its variables, and its inputs."""
    x, y = (np.asarray(a) for a in load_digits(return_X_y=True))
    x, y = jnp.asarray(x / 16, jnp.float32), jnp.asarray(y, jnp.int32)
    student = distill.student("mlp", 64, 10)
    labels = distill.Bank(x[:1_000], jax.nn.one_hot(y[:1_000], 10), None, y[:1_000])
    run = distill.train(jax.random.key(1), Hyper(loss="membership", steps=1_000), labels, student)
    return student, run.variables, x


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(View(shown="absolute"), marks=pytest.mark.slow),
        View(explanation="integrated_gradients"),
    ],
    ids=str,
)
def test_a_student_of_what_is_shown_is_better_than_one_that_takes_it_for_gradients(view, digits):
    student, true, x = digits
    bank = distill.buy(
        oracles.from_jax(lambda p, z: student.apply(p, z[None])[0], true, view), x[:20]
    )
    told = Hyper(loss="shown", steps=1_000, weight=10.0, outputs="odds")

    def agreement(hyper, bank):
        run = distill.train(jax.random.key(2), hyper, bank, student)
        assert run.ok
        classes = (student.apply(v, x[1_000:]).argmax(1) for v in (run.variables, true))
        return float(jnp.mean(next(classes) == next(classes)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it takes for gradients
        naive = agreement(replace(told, loss="projection"), bank)
    assert 1 - agreement(told, bank) < 0.7 * (1 - naive)


def test_what_is_not_a_gradient_is_named_where_gradients_are_compared():
    for view in (
        View(shown="absolute"),
        View(explanation="integrated_gradients"),
        View(of="probabilities"),
    ):
        with pytest.warns(UserWarning, match=re.escape(f"view is {view}, which no student")):
            distill.train(jax.random.key(0), Hyper(steps=1), bought(view), MLP)
    rounded = bought(View(shown="digits_4"))
    distill.train(jax.random.key(0), Hyper(steps=1), rounded, MLP)


def test_settings_that_do_not_fit_what_is_shown_are_refused():
    for bank, more, sentence in (
        (replace(bought(View()), view=None), {}, "needs a bank that says what is shown"),
        (bought(View(explanation="none")), {}, "needs gradients"),
        (bought(View(shown="absolute")), {"points": 3}, "points are for losses that compare"),
    ):
        with pytest.raises(ValueError, match=sentence):
            distill.train(jax.random.key(0), Hyper(loss="shown", **more), bank, MLP)
    with pytest.raises(ValueError, match="gradients have shape"):
        distill.train(
            jax.random.key(0), Hyper(loss="projection"), bought(View(shown="channel_sum")), MLP
        )
    oracle = oracles.from_host(lambda x: (x, x[:, :, None]), view=View(shown="channel_sum"))
    with pytest.raises(oracles.ReplyError, match="pictures of 3 channels, not 5 inputs"):
        distill.buy(oracle, np.ones((2, 5)))


def test_the_whole_jacobian_is_what_it_was():
    """Without a form, what is shown is what the projection compares, draw by draw."""
    bank = bought(View())
    batch = Batch(
        *(getattr(bank, n) for n in ("x", "outputs", "gradient", "label")),
        jnp.full(N, 1 / N),
        Scales(jnp.float32(1), jnp.float32(1)),
        View(),
    )

    @jax.jit
    def both(keys):
        _, pull = jax.vjp(lambda x: MLP.apply(OTHER, x), X)
        whole = losses.LOSSES["jacobian"].rows(lambda c: pull(c)[0][None], batch, None)
        shown = losses.LOSSES["shown"].rows
        return whole, jax.vmap(lambda key: shown(lambda x: MLP.apply(OTHER, x), batch, key))(keys)

    whole, shown = both(jax.random.split(jax.random.key(1), 2_000))
    error = np.asarray(shown.std(0)) / 2_000**0.5
    assert (np.abs(np.asarray(shown.mean(0)) - np.asarray(whole)) < 5 * error).all()
