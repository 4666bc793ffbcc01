# From a fresh clone, with git, python3.11 and make: `make up` runs everything on this machine, `make test` checks it.

UV_VERSION := 0.13.8
PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV := .uv/bin/uv

# Else the first start of each process compiles what it imports, and Ray gives its node 30 seconds to register.
export UV_COMPILE_BYTECODE := 1

.PHONY: up test stacks parts setup lint bench clean

up: setup  ## Start the embedded default and keep it as example-desired-state says; ONCE=1: one pass, then stop.
	.venv/bin/reconcile up example-desired-state $(if $(ONCE),--once) $(ARGS)

test: setup  ## Every check there is: one stack at a time, and beside it what needs none, and the soak.
	$(MAKE) --no-print-directory --jobs=2 stacks parts

stacks:
	.venv/bin/pytest -m e2e --ignore=tests/e2e/test_soak.py $(ARGS)

parts:
	.venv/bin/pytest -q -m "not e2e" $(ARGS)
	.venv/bin/pytest -q tests/e2e/test_soak.py

setup: .venv/.synced .venv-hypha/.synced  ## Both environments, from locked versions; nothing to do when they are current.

lint: setup
	.venv/bin/ruff check
	.venv/bin/pyright --pythonpath .venv/bin/python
	.venv/bin/lint-imports

bench: setup
	set -e; for script in $$(grep -l __main__ benchmarks/*.py); do \
	  name=$$(basename $$script .py); echo "== $$name"; .venv/bin/python -m benchmarks.$$name; done

clean:  ## Everything that `make` made. What the embedded default keeps (.bioengine) stays.
	rm -rf .venv .venv-hypha .uv dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache

.venv/.synced: pyproject.toml uv.lock .uv/.installed-$(UV_VERSION)
	UV_PROJECT_ENVIRONMENT=.venv $(UV) sync --locked --all-extras
	touch $@

# Hypha's pins and Ray's clash: hence a second environment.
HYPHA := bioengine_runtime/local/hypha
.venv-hypha/.synced: $(HYPHA)/pyproject.toml $(HYPHA)/uv.lock .uv/.installed-$(UV_VERSION)
	UV_PROJECT_ENVIRONMENT="$(CURDIR)/.venv-hypha" $(UV) sync --locked --project $(HYPHA)
	touch $@

.uv/.installed-$(UV_VERSION):
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	touch $@
