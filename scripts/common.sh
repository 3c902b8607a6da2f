#!/usr/bin/env bash
# Sourced by every stage script: strict mode, repository root, .venv and sources on the paths, quiet engines.
# Not for running by itself; `bash scripts/common.sh --help` prints this.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  sed -n '2,3s/^# //p' "$0"
  exit 0
fi
# shellcheck source=scripts/signals.sh
source "$(dirname "${BASH_SOURCE[0]}")/signals.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=$(cd "${VENV:-.venv}" 2>/dev/null && pwd) || venv=
if [[ ! -x $venv/bin/python ]]; then
  if [[ ${VENV:-} == *-cpu ]]; then set_up='setup.sh cpu'; else set_up=setup.sh; fi
  echo "error: no ${VENV:-.venv}; run: ${VENV:+VENV=$VENV }bash scripts/$set_up" >&2
  exit 2
fi
export PATH="$venv/bin:$PATH"
# The engine is the pip-installed verl; our layer lives below verl/, which has no __init__.py.
export PYTHONPATH="$PWD:$PWD/verl${PYTHONPATH:+:$PYTHONPATH}"
# Every process that imports an engine would compile thousands of files again.
unset PYTHONDONTWRITEBYTECODE
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
# No usage reports from any engine.
export DO_NOT_TRACK=1 VLLM_NO_USAGE_STATS=1 RAY_USAGE_STATS_ENABLED=0 HF_HUB_DISABLE_TELEMETRY=1
# One thread an operation, as torchrun sets it: several processes share the cores, and small operations lose by more threads.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
