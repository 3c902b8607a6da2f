#!/usr/bin/env bash
# Everything that must hold: set-up, ruff, mypy, shellcheck, then pytest (unit tests, and the integration tests on real engines), on a CPU.
# Tests with an engine run one after another, the others next to them: two processes (-n 0: one).
# usage: bash scripts/run_tests.sh [pytest arguments]      for example: -m unit | -k collator | -x
if [[ ${1:-} == --help ]]; then
  sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"
  exit 0
fi
# shellcheck source=scripts/cpu_set.sh
source "$(dirname "${BASH_SOURCE[0]}")/cpu_set.sh"
bash scripts/setup.sh cpu
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export HF_HUB_OFFLINE=1
ruff check .
ruff format --check --quiet .
mypy
shellcheck scripts/*.sh benchmarks/*.sh .ci/run
exec python -m pytest -n 2 "$@"
