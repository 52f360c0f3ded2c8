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
# # Recover a network exactly
#
# A service that answers with a prediction and its input gradient gives a two-layer ReLU network
# away: `recon.exact` finds all its weights, in one to two queries a hidden unit.
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
# ## A victim
#
# Any function from an input to logits that JAX can differentiate.  This one has 40 hidden units,
# and recon is told neither that nor anything else but the number of inputs.

# %%
import jax

from recon import exact, oracles

rows, weights = (jax.random.normal(jax.random.key(i), (16, 40)) for i in (1, 2))


def victim(x):
    return weights @ jax.nn.relu(x @ rows)


r = exact.recover(oracles.from_jax(victim), dim=16, key=0)
print(r)
print(r.network, "from", r.cost.queries, "queries")

# %% [markdown]
# `ok` is True only for a network that was held against the victim on fresh queries.  The recovered
# units are the victim's, in another order and scale: their rows are parallel.

# %%
import numpy as np

assert r.ok
ours = np.asarray(r.network.rows)
cosines = np.abs(ours @ np.asarray(rows))
cosines /= np.linalg.norm(ours, axis=1)[:, None] * np.linalg.norm(rows, axis=0)
print("each unit's best cosine with the victim's: at least", cosines.max(axis=0).min())

# %% [markdown]
# ## A victim that is not JAX
#
# Anything else is a function of NumPy arrays that returns values and gradients: a model of
# another framework, or a service.

# %%
A, b = np.random.default_rng(0).standard_normal((30, 8)), np.linspace(-1, 1, 30)
C = np.random.default_rng(1).standard_normal((3, 30))
asked = 0


def service(x):
    global asked
    asked += len(x)
    sums = x @ A.T + b
    return np.maximum(sums, 0) @ C.T, np.einsum("kh,nh,hd->nkd", C, sums > 0, A)


r = exact.recover(oracles.from_host(service), dim=8, key=0)
x = np.random.default_rng(2).standard_normal((1_000, 8))
print(r.ok, "worst error:", np.abs(r.network(x) - service(x)[0]).max())
print("queries counted by recon:", r.cost.queries, "and by the service:", asked - len(x))

# %% [markdown]
# `r.network.save("stolen.npz")` writes it, `networks.load` reads it back.  What does not fit comes
# back with `ok` False and a sentence that says why:

# %%
r = exact.recover(oracles.from_jax(lambda x: jax.numpy.tanh(x @ rows).sum()[None]), dim=16, key=0)
print(r.ok, r)
