# Every target sets up .venv from nothing but Python >= 3.11 and a network.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: setup quickstart test test-fast check bundled-model lock clean

setup: $(VENV)/.ready

# requirements.lock pins every version; the stamp makes the second call free.
$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "dlq needs Python 3.11 or newer: make PYTHON=python3.12 ..."'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

quickstart: setup
	$(VENV)/bin/dlq submit --grid grids/quickstart.yaml --yes

# Tests that start clusters or kill processes run one at a time, the others on all cores.
test: setup
	$(RUN) -m pytest -n auto --dist loadfile -m "not ray and not chaos"
	$(RUN) -m pytest -m "ray or chaos"

test-fast: setup
	$(RUN) -m pytest -n auto --dist loadfile -m "not slow and not ray and not chaos"

check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(RUN) -m pytest tests/house

bundled-model: setup
	$(RUN) -m models.bundled

lock: setup
	$(RUN) -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info
