# `make run` and `make test` are all that is needed: the first use of either sets everything up.
.PHONY: run test quick picture lint format setup bench check-device check-slurm lock clean
.DEFAULT_GOAL := run

SHELL := /bin/bash
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# A shell without `make` does the same: `. .venv/bin/activate`, then `snakemake --cores 1`.
export PATH := $(CURDIR)/$(BIN):$(PATH)

run: setup
	snakemake --cores 1

# A file of tests runs in one of two processes, each with one core.
test: lint
	python -m pytest -n 2 --dist loadfile

# Under a minute on two cores: lint, and every test that needs no model, starts no process and takes no second.
quick: lint
	python -m pytest -m "not slow" -n 2

lint: setup
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	snakemake --lint

format: setup
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

setup: $(VENV)/.ready

# uv where it is installed, venv and pip elsewhere: the same pins and hashes. The mark is written last, so an
# interrupted set-up is begun anew.
$(VENV)/.ready: requirements.lock pyproject.toml
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("callwright needs Python 3.11 or newer, this is %d.%d: name another one, as in `make PYTHON=python3.12`" % sys.version_info[:2])'
	@if command -v uv >/dev/null; then \
	    uv venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV) && \
	    uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock && \
	    uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps -e . ; \
	else \
	    $(PYTHON) -m venv $(VENV) && \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock && \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e . ; \
	fi
	@$(BIN)/python -m callwright.runtime.blas install
	@touch $@

# callwright beside mlx-lm, in turn: training (`make bench BENCH='--work smollm2 --records FILE'`, see benchmarks/trainer.py),
# then answers to test items of a finished run (`GENERATION='--items 100 --adapter'`, see benchmarks/generation.py).
bench: setup
	python benchmarks/trainer.py $(BENCH)
	python benchmarks/generation.py $(GENERATION)
	python benchmarks/serving.py $(SERVING)

# Does it all work on this machine's device (Metal, CUDA or the CPU), and as on a CPU? A table for docs/results.md.
# `CHECK='--models tiny-gemma3'` takes seconds; see benchmarks/check_device.py.
check-device: setup
	python benchmarks/check_device.py $(CHECK)

# A sweep through profiles/slurm on a one-node Slurm that is started for it; two of its four trainings are cut off on the
# way (benchmarks/check_slurm.py). Needs Debian's slurm-wlm and munge and the plugin of docs/cluster.md; installs nothing.
check-slurm: setup
	python benchmarks/check_slurm.py

# The picture of the README, from a finished default run, by a headless Chromium.
CHROMIUM ?= chromium
picture:
	$(CHROMIUM) --headless --no-sandbox --hide-scrollbars --window-size=1100,780 \
	    --screenshot=docs/report.png results/default/report.html

# Resolve requirements.in anew, for macOS arm64 and Linux x86-64 and aarch64 at once; environment.yml follows.
lock:
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-annotate --custom-compile-command "make lock" requirements.in -o requirements.lock

# Everything that was computed; the environment stays.
clean:
	rm -rf results .snakemake
