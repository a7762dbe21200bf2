# Every target creates the environment from the lock first, if it is not there.
# Variables: PYTHON (to create .venv), NB (a notebook), PROFILE, SET ("name=value ..."), GRID
# ("name=value,value ..."), WORK (names of benchmarks).
PYTHON ?= python3
PROFILE ?= laptop
export NB PROFILE SET GRID WORK
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: env book test check run sweep record fresh colab peers bench preview lock clean help
.DEFAULT_GOAL := help

help:            ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

env: $(READY)    ## create .venv from requirements.lock

# The lock is complete, so pip resolves nothing (--no-deps): neural-tangents asks for
# TensorFlow, which nothing here uses.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"$(PYTHON) is Python {v[0]}.{v[1]}; Python 3.11, 3.12 or 3.13 is needed. Name another one: make env PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

book: $(READY)   ## execute what changed, render the book to build/html
	@$(BIN)/python -m workflow book

test: $(READY)   ## run all tests
	@$(BIN)/python -m pytest -n auto --dist loadfile

check: $(READY)  ## format, lint, types and the fast tests, in two minutes
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy
	@$(BIN)/python -m pytest -n auto -m "not slow"

run: $(READY)    ## run one notebook: make run NB=ntk_transfer PROFILE=laptop SET="seeds=[7]"
	@$(BIN)/python -m workflow run "$$NB" --profile "$$PROFILE" --set="$$SET"

sweep: $(READY)  ## run one on a grid: make sweep NB=ntk_transfer GRID="epsilon=0.1,0.2 width=64,256"
	@$(BIN)/python -m workflow sweep "$$NB" --grid="$$GRID" --profile "$$PROFILE" --set="$$SET"

record: $(READY) ## run one notebook and keep its result under records/
	@$(BIN)/python -m workflow record "$$NB" --profile "$$PROFILE" --set="$$SET"

fresh: $(READY)  ## run all notebooks on the seeds of the profile fresh, keep the results
	@$(BIN)/python -m workflow record --profile fresh

# With PYTHON, if given, else the latest of 3.11 to 3.13; Colab has 3.13.
colab: $(READY)  ## run the notebooks with the packages and the versions that Colab has
	@$(BIN)/python tests/colab/run.py

# Not in the lock: which of PyTorch's builds there is depends on the machine. AutoAttack needs it.
# The checkers of the book's metadata want older versions of what others here use, so they live apart.
peers: $(READY)  ## install PyTorch, AutoAttack and checkers of metadata, with which tests compare
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 pyautoattack==0.2.0
	$(BIN)/python -m venv $(VENV)/checkers
	$(VENV)/checkers/bin/python -m pip install --quiet --disable-pip-version-check roc-validator==0.13.0 cffconvert==2.0.0

bench: peers     ## compare speed with peers, as a table of ratios; WORK="gram_256 pgd" for some
	@$(BIN)/python -m benchmarks $$WORK

preview: $(READY) ## take README's picture anew, of the built book
	@NTKLIB_PREVIEW=1 $(BIN)/python -m pytest tests/browser/test_preview.py

# uv writes the locks; the overrides leave TensorFlow out. What the notebooks need alone is in
# notebooks.lock, in the same versions: results depend on these, and Binder installs no others.
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--override workflow/lock-overrides.txt --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock" --quiet

lock:            ## resolve requirements.lock anew, and notebooks.lock from it (needs uv)
	$(LOCK) --all-extras --output-file requirements.lock
	$(LOCK) --extra notebooks --extra build --constraint requirements.lock --output-file notebooks.lock

clean:           ## remove everything generated, the environment too
	rm -rf build $(VENV) .snakemake
