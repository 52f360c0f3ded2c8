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
# # A sweep, with a figure
#
# An experiment is a row: victims, students, budgets, replies, and any grid of settings.  Its cells
# are plain data; finished ones are kept, so a sweep that is killed goes on where it was.
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
# ## The row
#
# Two-layer students of two-layer victims on digits: gradients against predictions, three budgets,
# two learning rates, two seeds.

# %%
from recon.experiments.rebuild import Panel, Rebuild, Where

sweep = Rebuild(
    "Learning rates of a two-layer student.",
    panels=(Panel("mlp", (1, 10, 100), seeds=2),),
    dataset="digits",
    victim_steps=1_000,
    steps=300,
    grid=(("learning_rate", (3e-3, 3e-2)),),
)
print(len(sweep.plan()), "cells; the first:", sweep.plan()[0])

# %% [markdown]
# `Where(workers=4)` measures them in four processes, `Where(dask="tcp://...")` on a cluster,
# `Where(devices=8)` over eight devices.

# %%
rows = sweep.run(where=Where())
for row in sweep.summary(rows):
    print({name: row[name] for name in ("reply", "budget", "learning_rate", "accuracy")})

# %% [markdown]
# ## The figure
#
# Any figure of the tables can be drawn from rows; here with the better learning rate.

# %%
from IPython.display import Image

from recon import reports
from recon.reports import matching


def right(rate):
    return sum(row["accuracy"] for row in rows if row["learning_rate"] == rate)


best = max({row["learning_rate"] for row in rows}, key=right)
chosen = [row for row in rows if row["learning_rate"] == best]
reports.save(Path("sweep.png"), matching.figure2, chosen)
Image("sweep.png")
