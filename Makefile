# Each target sets up what it needs in .venv and nothing outside the repository.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
OLAH := .venv/olah/bin/olah-cli

.DEFAULT_GOAL := help
.PHONY: help demo test quick lint app browser lower audit sbom clean

help:  ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST)

demo: $(READY)  ## Enlarge a shipped example with its references; pictures in outputs/demo
	$(BIN)/python examples/demo.py

# Two files of tests at a time, each on one core: threads that wait for each other's core would take longer.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadfile

test: lint $(OLAH)  ## Lint, types and tests
	$(PYTEST)

quick: lint  ## Lint, types and the tests that take a moment: under two minutes
	$(PYTEST) -m "not slow"

lint: $(READY)  ## Ruff and mypy only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

app: $(READY)  ## Start the browser interface
	$(BIN)/python app.py

browser: $(READY)  ## Chromium and Playwright for the browser tests and the screenshots
	$(BIN)/python -m pip install --disable-pip-version-check --no-input -q playwright
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get && apt-get install -qy --no-install-recommends chromium; } || \
	  $(BIN)/playwright install chromium

lower: $(READY)  ## The quick tests with the oldest versions that pyproject.toml allows, in .venv/lower
	$(BIN)/python -m tests.helpers.lower_bounds > .venv/lower.txt
	$(BIN)/python -m pip --version >/dev/null && $(PYTHON) -m venv .venv/lower
	.venv/lower/bin/python -m pip install --disable-pip-version-check --no-input -q -c .venv/lower.txt -e '.[test,train]'
	.venv/lower/bin/python -m pytest -m "not slow"

audit: $(READY)  ## Known vulnerabilities of what is installed; asks a service on the network
	$(BIN)/python -m pip install --disable-pip-version-check --no-input -q pip-audit
	@# strict: a package that the service does not know was not audited. A wheel's local version, +cpu, is not known.
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+.*//' > .venv/audit.txt
	$(BIN)/pip-audit --strict --disable-pip --no-deps -r .venv/audit.txt

sbom: $(READY)  ## What is installed, as a CycloneDX bill of materials: outputs/sbom.json
	$(BIN)/python -m pip install --disable-pip-version-check --no-input -q cyclonedx-bom
	mkdir -p outputs
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o outputs/sbom.json $(BIN)/python

clean:  ## Remove the environment and everything generated
	rm -rf .venv outputs .mypy_cache .ruff_cache .pytest_cache *.egg-info

# Somebody else's mirror of the Hub, in an environment of its own; its test is skipped where it does not install.
$(OLAH): | $(READY)
	-$(BIN)/python -m venv .venv/olah && .venv/olah/bin/python -m pip install --disable-pip-version-check --no-input -q olah

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; choose one with make PYTHON=python3.12 ..." >&2; exit 1; }
	@# Debian's python3 without python3-venv cannot put pip into a new environment, its own pip can.
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv || \
	  { $(PYTHON) -m venv --without-pip .venv && $(PYTHON) -m pip --python $(BIN)/python install pip; }
	$(BIN)/python -m pip install --disable-pip-version-check --no-input -r requirements.txt -e '.[test]'
	touch $(READY)
