# Commands of this project: `make` lists them.
#
# Only make and Python >= 3.11 are needed. `.venv` is created once. Stamp files in it show which steps are complete, so that
# nothing is installed or downloaded twice. An interrupted installation leaves no stamp: the next `make` starts with an
# empty `.venv`.

PYTHON ?=
CONFIG ?= examples/quickstart.yaml
PYTEST_ARGS ?=
BENCH_ARGS ?=
FUZZ_ARGS ?=
PEERS ?=
CHAOS_SECONDS ?= 120
CHAOS_SEED ?=
MODULES ?=
VENV ?= .venv

BIN := $(VENV)/bin
MADE := $(VENV)/.made
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
MUTANTS := $(VENV)/.mutants
CANDIDATES := $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python)
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run test check lint types layers mirror english native docs-check proto-check fmt docs proto pin bench fuzz interop chaos hostile mutants clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r word text; \
	do printf '%-16s %s\n' "$$word" "$$text"; done

run: $(RUNTIME) ## start the agent on examples/quickstart.yaml (CONFIG=… for another file)
	@exec $(BIN)/otelwp-agent run --config $(CONFIG)

# Tests start the agent some hundred times. Each start is a quarter cheaper if Python may keep the compiled modules.
test interop chaos hostile: export PYTHONDONTWRITEBYTECODE =

test: $(DEV) ## run the tests in parallel (PYTEST_ARGS=… to select)
	@$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

# All checks run, even if an earlier one has failed.
check: $(DEV) ## check lint, types, layers, mirrored tests, English, C warnings, generated documentation and protobuf code
	@$(MAKE) --no-print-directory --keep-going lint types layers mirror english native docs-check proto-check

lint: $(DEV)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { $(BIN)/ruff format --check .; echo "\`make fmt\` formats them." >&2; exit 1; }

types: $(DEV)
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/mypy --no-error-summary tools

layers: $(DEV)
	@$(BIN)/python tools/layers.py

mirror: $(DEV)
	@$(BIN)/python tools/mirror.py

english: $(DEV)
	@$(BIN)/python tools/english.py

native: $(DEV)
	@$(BIN)/python tools/native.py

docs-check: $(DEV)
	@$(BIN)/python tools/docs.py --check

proto-check: $(DEV)
	@$(BIN)/python tools/proto.py --check

fmt: $(DEV) ## format the code, and fix what ruff can fix
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

docs: $(DEV) ## write the pages in docs/ that are generated from the code
	@$(BIN)/python tools/docs.py

proto: $(DEV) ## compile the .proto files
	@$(BIN)/python tools/proto.py

pin: $(DEV) $(MUTANTS) ## write the versions installed in .venv to constraints.txt
	@$(BIN)/python tools/pin.py

bench: $(DEV) ## compare speed and memory with a peer (BENCH_ARGS=--quick for a short run)
	@$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

fuzz: $(DEV) ## feed invalid input to the HTTP server, the codecs and the C module (FUZZ_ARGS=…)
	@for target in benchmarks/fuzz/fuzz_*.py; do $(BIN)/python $$target $(FUZZ_ARGS) || exit 1; done
	@$(BIN)/python tools/native.py --fuzz $(FUZZ_ARGS)

interop: $(DEV) ## install real peers and run the tests with them (PEERS=… to select)
	@PYTHONPATH=tools $(BIN)/python -m peers $(PEERS)
	@OTELWP_PEERS_BUILD=no $(BIN)/python -m pytest -m interop $(PYTEST_ARGS)

chaos: $(DEV) ## kill agents and make disks fail, and check that no data are lost (CHAOS_SECONDS=120 CHAOS_SEED=… PYTEST_ARGS=…)
	@CHAOS_SECONDS=$(CHAOS_SECONDS) CHAOS_SEED=$(CHAOS_SEED) $(BIN)/python -m pytest -m chaos tests/chaos $(PYTEST_ARGS)

hostile: $(DEV) ## attack agents, and check response times and memory (PYTEST_ARGS=…)
	@$(BIN)/python -m pytest -m hostile tests/hostile $(PYTEST_ARGS)

mutants: $(MUTANTS) ## change guarded code in small ways and check that a test fails (MODULES="model/receipt.py sending" for some)
	@$(BIN)/python tools/mutants.py $(MODULES)

clean: ## remove .venv and all built and cached files
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	@find otelwp_agent tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# An interpreter given as PYTHON replaces a `.venv` of another version, if it is new enough.
ifneq ($(PYTHON),)
VERSION := -c 'import sys; print(sys.version_info[:3] if sys.version_info >= (3, 11) else "too old")'
ASKED := $(shell $(PYTHON) $(VERSION) 2>/dev/null || echo missing)
ifneq ($(ASKED),$(shell $(BIN)/python $(VERSION) 2>/dev/null))
ifneq ($(filter missing too,$(ASKED)),)
$(error $(PYTHON) is $(ASKED): otelwp-agent needs Python 3.11 or newer)
endif
$(shell rm -f $(MADE) $(RUNTIME) $(DEV) $(MUTANTS))
endif
endif

$(MADE):
	@for python in $(CANDIDATES); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "otelwp-agent needs Python 3.11 or newer, and none of these is: $(CANDIDATES)." >&2; \
	  echo "Install one, or name one: make $(or $(MAKECMDGOALS),run) PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" -V)"; \
	"$$found" -m venv --clear $(VENV) && touch $@

# The stamp of `.venv` is removed while pip runs. If pip fails, the stamp is restored, because pip leaves `.venv` usable. If
# the installation is interrupted, it is not restored.
define install
	@echo "Installing $(1)"; rm -f $(MADE); trap 'exit 130' INT TERM; \
	$(PIP_INSTALL) --editable '$(1)'; status=$$?; touch $(MADE); exit $$status
	@touch $@
endef

# The extension module is compiled if there is a C compiler.
$(RUNTIME): pyproject.toml constraints.txt $(wildcard otelwp_agent/model/native/*) | $(MADE)
	$(call install,.)

$(DEV): pyproject.toml constraints.txt $(RUNTIME)
	$(call install,.[dev])

$(MUTANTS): pyproject.toml constraints.txt $(DEV)
	$(call install,.[mutants])
