# The few verbs of a developer; each calls a script, so that everything works without make too.
.PHONY: help setup test unit lint types hooks quickstart bench audit
run = bash -c 'source scripts/common.sh && exec "$$@"' make

help: ## this list
	@sed -n 's/^\([a-z]*\): ## /\1\t/p' Makefile | expand -t 12

setup: ## .venv with the pinned packages (auto: GPU or CPU)
	@bash scripts/setup.sh auto

test: ## everything that must hold, as CI runs it
	@bash scripts/run_tests.sh

unit: ## the same without the tests that start an engine
	@bash scripts/run_tests.sh -m unit

lint: ## ruff, its formatter and shellcheck
	@$(run) ruff check . && $(run) ruff format --check .
	@$(run) shellcheck scripts/*.sh benchmarks/*.sh .ci/run

types: ## mypy on the core
	@$(run) mypy

hooks: ## the checks of .pre-commit-config.yaml before every commit
	@$(run) pre-commit install

quickstart: ## the whole method on the miniature world
	@bash scripts/quickstart.sh

bench: ## every benchmark, one table in outputs/benchmarks/
	@bash benchmarks/run_all.sh

audit: ## known vulnerabilities of the pinned packages (needs the network, so not in CI)
	@$(run) uvx --from pip-audit==2.10.1 pip-audit --strict --no-deps --disable-pip -r requirements.txt
