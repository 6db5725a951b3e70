PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: install demo test check bench clean-bench figures clean
.DELETE_ON_ERROR:

install: $(STAMP)

# torch goes in first and exactly: a looser range would fetch an accelerator build of several GB.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e '.[dev]'
	touch $@

demo: install
	$(BIN)/offramp demo

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest

# Parts that have ended are kept and not run again; clean-bench forgets them.
bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/bench.py

$(VENV)/.installed-bench: $(STAMP)
	$(PIP) -e '.[bench]'
	touch $@

clean-bench:
	rm -rf build/bench

figures: install
	$(BIN)/offramp figure 3 -o docs/figures
	for number in 5 6 7; do for timing in paper network; do \
		$(BIN)/offramp figure $$number -o docs/figures --timing $$timing || exit 1; done; done

clean:
	rm -rf $(VENV) build dist
