# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Rebuild a classifier by matching gradients, and change the explanation
#
# Where exact recovery does not reach, a student is trained until its gradients are the victim's.
# Ten gradient queries do what hundreds of predictions do.
#
# The next cell installs recon where it is missing, from a clone, a wheel or a `git+https` address.
# The versions of JAX that are there stay as they are.

# %%
import importlib.util
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

RECON = ".."  # a clone, a wheel, or git+https://...

if importlib.util.find_spec("recon") is None:
    there = {d.name: d.version for d in distributions() if d.name.startswith("jax")}
    Path("host.txt").write_text("\n".join(f"{name}=={of}" for name, of in there.items()))
    command = ["pip", "install", "-q", f"{RECON}[plot]", "-c", "host.txt"]
    subprocess.run([sys.executable, "-m", *command], check=True)

# %% [markdown]
# ## A victim: a convolutional network that reads digits
#
# scikit-learn's 8x8 digits.  For MNIST or CIFAR-10 write `data.load("mnist", data_dir=...)`.

# %%
import jax

from recon import data, distill, oracles, victims

digits = data.load("digits")
victim = victims.classifier(digits, "conv", training=victims.Training(steps=1_000))
print("the victim is right on", victim.accuracy)

# %% [markdown]
# ## A student of ten gradient queries, and one of ten predictions
#
# `View` says what the service shows.  Queries are counted, and bought once.

# %%
student = distill.student("conv", digits.shape, digits.classes)
test = digits.test.x.astype("float32")


def rebuilt(view, queries=10, steps=600, **settings):
    """The share of test images on which a student answers as the victim does."""
    oracle = oracles.from_jax(victim.f, victim.variables, view)
    bank = distill.buy(oracle, digits.pool.x[:queries].astype("float32"))
    hyper = distill.Hyper(steps=steps, learning_rate=1e-2, **settings)
    run = distill.train(jax.random.key(0), hyper, bank, student)
    same = student.apply(run.variables, test).argmax(1) == victim.oracle.value(test).argmax(1)
    return float(same.mean())


gradients = rebuilt(oracles.View())
labels = rebuilt(oracles.View(explanation="none"), loss="membership")
print("ten gradients:", gradients, " ten predictions:", labels)
assert gradients > labels

# %% [markdown]
# ## An explanation of your own
#
# An explanation is a function of (f, x, key) and a row of a table.  This one shows the gradient
# with three of four numbers left out.

# %%
from recon import explanations


def sparse(f, x, key):
    """The Jacobian [K, d], less the three quarters of its numbers that are smallest."""
    rows = explanations.jacobian(f, x)
    least = jax.numpy.quantile(abs(rows), 0.75)
    return jax.numpy.where(abs(rows) >= least, rows, 0)


explanations.EXPLANATIONS["sparse"] = sparse
print("ten sparse gradients:", rebuilt(oracles.View(explanation="sparse")))
