# The commands of the people who work on this. Each sets up what it needs; `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help demo test fast lab soak lint docs bench record clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: .venv/ready ## the main job on a real fleet: find, prove, apply, verify a missing index
	@scripts/demo

test: lint fast lab docs ## everything: linters, fast tests, tests on a real fleet, the site

lint: .venv/ready ## ruff, mypy, import-linter
	ruff check .
	ruff format --check .
	mypy
	lint-imports

fast: .venv/ready ## the tests that need no server
	pytest

# What fails is run once more on servers of its own, alone: what only a busy machine did is told apart from what is broken.
lab: .venv/ready ## the tests on a real fleet
	scripts/test-servers pytest -m "lab and not soak" -n 3 --dist loadfile --durations=40 || { echo "It ended with $$?."; \
		scripts/test-servers pytest -m "lab and not soak" --last-failed --last-failed-no-failures none -x; }

soak: .venv/ready ## the same with the long repetitions
	scripts/test-servers pytest -m "lab or soak" -n 2 --dist loadfile

docs: .venv/ready ## build the site below build/site
	aiprod-ops docs build

bench: .venv/ready ## measure; `make bench BENCH=name` for one
	scripts/test-servers python -m benchmarks $(BENCH)

record: .venv/ready ## run the demo and keep its output and evidence for README and site
	scripts/record

clean: ## remove what was built, the virtual environment included
	rm -rf .venv build *.egg-info

.venv/ready: pyproject.toml
	@scripts/setup "$(PYTHON)"
	@touch $@
