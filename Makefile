# make demo   set up, then run the whole job on a few photographs
# make test   set up, then format, lint, types and tests
# make check   the inner loop: format, lint, types, and the tests that need neither Ray, a server nor a network
# make test-long   the tests that take a minute or more each: kills one by one, Ray Train, a night that its deadline stops
# make sanitize   the CRF engine's tests under AddressSanitizer and UndefinedBehaviorSanitizer (minutes)
# make fuzz-crf   10,000 random inputs for the CRF engine
# make chaos   half an hour in which drivers, workers, nodes and the object store are killed again and again
# make chaos-short   three minutes of it
# make wheels   wheels for this machine's processor and Python 3.11 to 3.13, each tried in a fresh environment (minutes)
# make same-masks BASE=COMMIT   the same jobs by that commit and by this checkout: every difference of their rows (minutes)
# Everything lives in .venv; a second call sets up nothing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
READERS := $(VENV)/.readers

.PHONY: demo test check test-long lint format sanitize fuzz-crf chaos chaos-short same-masks wheels clean

demo: $(STAMP)
	$(BIN)/segbatch demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not long"

test-long: $(READERS)
	$(BIN)/python -m pytest -m long

lint: $(STAMP)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

sanitize: $(STAMP)
	tests/crf/sanitize.sh $(BIN)/python

fuzz-crf: $(STAMP)
	SEGBATCH_FUZZ_EXAMPLES=10000 $(BIN)/python -m pytest -q --timeout 0 tests/crf/test_random.py

chaos: $(STAMP)
	$(BIN)/python -m tests.chaos --minutes 30

chaos-short: $(STAMP)
	$(BIN)/python -m tests.chaos --minutes 3 --pause 3 10

same-masks: $(STAMP)
	$(BIN)/python -m tests.same_masks --base $(or $(BASE),$(error say which commit to compare with: BASE=COMMIT))

wheels:
	deploy/wheels.sh $(or $(PYTHONS),python3.11 python3.12 python3.13)

$(STAMP): pyproject.toml $(wildcard segbatch/crf/_native/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $(STAMP)

$(READERS): $(STAMP) tests/exports/readers.txt
	$(BIN)/python -m pip install --quiet --no-deps --requirement tests/exports/readers.txt
	touch $(READERS)

clean:
	rm -rf $(VENV) build dist demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
