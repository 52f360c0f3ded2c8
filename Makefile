# Every target sets up .venv itself; python3, pip, make and git are all it takes.
#   make demo        recover networks trained on digits, in about a minute
#   make test        the test suite; test-slow: the rest of it; test-notebooks: they run
#   make test-torch  the tests that hold ours against PyTorch and Captum, which it installs
#   make test-brought  the tests of other libraries' models and files, which it installs
#   make test-newest the test suite with the newest versions there are, in .venv-newest
#   make notebooks   the .ipynb files from their sources, notebooks/*.py
#   make bench       against other tools, on identical networks
# Another interpreter: make PYTHON=python3.12 demo

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e

# NumPy's threads beside JAX's own can stall both on few cores.
export OPENBLAS_NUM_THREADS := 1

.PHONY: install demo test test-slow test-notebooks test-torch test-brought test-newest lint notebooks bench figures clean

install: $(VENV)/installed

demo: install
	@$(RUN) -m recon demo

# A process for each core, up to four; one that runs out of tests takes half of what another
# has left.  PyTorch has threads of its own, so test-torch is one process.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist worksteal

TESTS := test test-slow test-notebooks test-torch test-brought test-newest
# What tests compile is kept for the next run, which then takes less than half the CPU time.
$(TESTS): export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/.jax_cache
$(TESTS): export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0
$(TESTS): export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES := -1
# On a fresh clone half of the time was LLVM's; test-slow has its optimizations, as users do, and
# test-torch: without them XLA's gradients of deep students are wrong (jax 0.10.2, a CPU).
$(filter-out test-slow test-torch,$(TESTS)): export JAX_DISABLE_MOST_OPTIMIZATIONS := 1
# Loops without a pass through MLIR, and programs compiled in one part, take half as long again to
# compile.  XLA aborts at a flag that it does not have.
$(filter-out test-slow test-newest,$(TESTS)): export XLA_FLAGS := --xla_cpu_use_fusion_emitters=false \
  --xla_cpu_parallel_codegen_split_count=1

test: install
	@$(RUN) -m pytest $(PARALLEL) -m "not slow" tests

test-slow: install
	@$(RUN) -m pytest $(PARALLEL) -m slow

test-notebooks: install
	@$(RUN) -m pytest $(PARALLEL) --nbmake notebooks

test-torch: $(VENV)/installed-bench
	@$(RUN) -m pytest tests/test_explanations.py tests/test_steps.py \
	  tests/distill/test_students.py tests/test_web_services.py

test-brought: $(VENV)/installed-brought
	@$(RUN) -m pytest tests/brought tests/test_exports.py
	@KERAS_BACKEND=torch $(RUN) -m pytest tests/brought/test_keras.py

NEWEST := .venv-newest
test-newest:
	@$(PYTHON) -m venv --clear $(NEWEST)
	@$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade \
	  --upgrade-strategy eager -e '.[plot,data,test]'
	@$(NEWEST)/bin/python -m pip list | grep -iE '^(jax|jaxlib|flax|optax|numpy|scipy) '
	@$(NEWEST)/bin/python -m pytest $(PARALLEL) -m "not slow" --nbmake tests notebooks

lint: install
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports --no-logo --no-cache

notebooks: install
	@$(VENV)/bin/jupytext --update --to ipynb notebooks/*.py

bench: $(VENV)/installed-bench
	@$(RUN) -m recon run bench-exact bench-distill

figures: install
	@$(RUN) -m recon plot all

clean:
	rm -rf $(VENV) $(NEWEST) build dist demo_output *.egg-info .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache .hypothesis .jax_cache
	find recon scripts tests -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "recon needs Python 3.11 or later; try: make PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV) once: about 1.2 GB on disk, a minute or two ..."
	@$(RUN) -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
	  echo "Without ensurepip: trying the pip of $(PYTHON) ..."; \
	  $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(RUN) install --quiet pip; }
	@$(INSTALL) '.[plot,data,test,dev]' || { echo "The packages could not be installed: pip has to" \
	  "reach its package index, or find the versions of constraints.txt on disk."; exit 1; }
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	@echo "Installing the tools to compare with ..."
	@$(INSTALL) '.[bench,serve]' || { echo "The bench extra could not be installed: pip has to" \
	  "reach its package index, or find the versions of constraints.txt on disk."; exit 1; }
	@touch $@

$(VENV)/installed-brought: $(VENV)/installed
	@echo "Installing the libraries that models come from ..."
	@$(INSTALL) '.[brought]' || { echo "The brought extra could not be installed: pip has to" \
	  "reach its package index, or find the versions of constraints.txt on disk."; exit 1; }
	@touch $@
