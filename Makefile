# Two commands set everything up: `make demo` and `make test`. Later runs skip what is in place.
PYTHON ?= python3
ARGS ?=
# Tests wait more than they compute. Those of one file share what they have set up; long files come first.
PROCESSES ?= 2

PACKAGES := wool-core wool-grpc wool-shm wool-ws wool-zeroconf
MODULES := wool $(subst -,_,$(filter-out wool-core,$(PACKAGES)))
# Distributions of third parties, as tests have them.
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard tests/plugins/*/pyproject.toml))
VENV := .venv
BIN := $(VENV)/bin
INSTALL := UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip install --quiet --python $(BIN)/python

.NOTPARALLEL:
.PHONY: demo test lint check compat kits mutants size bench docs format clean

demo: $(VENV)/.demo  ## run the examples
	@$(BIN)/python docs/examples/quickstart.py
	@echo
	@$(BIN)/python docs/examples/tokenize_stdlib.py

test: lint check  ## all checks, then all tests

lint: $(VENV)/.dev  ## style, types, direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	@for module in $(MODULES); do \
		told=$$(PATH="$(BIN):$$PATH" pyright --verifytypes $$module --ignoreexternal) || \
		{ echo "$$told"; echo "Public names of $$module lack types, see above"; exit 1; }; \
	done
	$(BIN)/lint-imports --no-logo

check: $(VENV)/.dev  ## the tests; make check ARGS="-k name" for some of them
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder \
		--durations=20 $(ARGS)

compat: $(VENV)/.dev  ## tests against the built packages: each Python, oldest and newest dependencies
	$(BIN)/python tests/publishing/compat.py $(ARGS)

kits: $(VENV)/.dev  ## what the conformance kits say of back-ends that are broken on purpose
	-$(BIN)/python -m pytest --runxfail --tb=native -p no:unraisableexception -q \
		tests/unit/broken_*.py $(ARGS)

mutants: $(VENV)/.dev  ## whether the tests find defects; make mutants ARGS=name for some of them
	$(BIN)/python tests/mutants/run.py $(ARGS)

size: $(VENV)/.dev  ## lines per folder, and functions per call
	$(BIN)/python tests/benchmarks/size.py

bench: $(VENV)/.dev  ## Wool beside others that are installed, and how its cost grows
	$(BIN)/python tests/benchmarks/compare.py $(ARGS)
	@mkdir -p build
	$(BIN)/python tests/benchmarks/growth.py --svg build/growth.svg

docs: $(VENV)/.dev  ## the pages as a site, in build/site
	$(BIN)/python -m sphinx -q -W --keep-going -b html -d build/doctrees docs build/site
	@echo "Open build/site/index.html"

format: $(VENV)/.dev  ## fix style where that is safe
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## remove what was installed and cached
	rm -rf $(VENV) build .coverage* .hypothesis .import_linter_cache .pytest_cache .ruff_cache

# The environment gets its packages from uv, which knows dependency groups; uv comes from pip. Bytecode is
# compiled once: a worker imports anew, and may not be allowed to keep what it has compiled.
$(BIN)/uv:
	@echo "Creating $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Wool needs Python 3.11 or newer: make PYTHON=python3.12")'
	@$(PYTHON) -m venv --without-pip $(VENV)
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet uv

$(VENV)/.demo: $(BIN)/uv pyproject.toml wool-core/pyproject.toml
	@$(INSTALL) --compile-bytecode --editable wool-core --group demo
	@$(BIN)/python -m compileall -q wool-core/src
	@touch $@

$(VENV)/.dev: $(BIN)/uv pyproject.toml $(PACKAGES:=/pyproject.toml) $(PLUGINS:=/pyproject.toml)
	@echo "Installing tools and test dependencies ..."
	@$(INSTALL) --compile-bytecode --editable 'wool-core[all]' $(addprefix --editable ./,$(PACKAGES) $(PLUGINS)) --group dev
	@$(BIN)/python -m compileall -q $(PACKAGES:=/src)
	@touch $@
