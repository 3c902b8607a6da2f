#!/usr/bin/env bash
# Sourced by setup.sh: makes the environment $venv with a Python 3.11 or 3.12, unless it is there.
# Not for running by itself; `bash scripts/make_venv.sh --help` prints this.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  sed -n '2,3s/^# //p' "$0"
  exit 0
fi
set -euo pipefail
suits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'
if ! "${venv:?}/bin/python" -c "$suits" 2>/dev/null; then
  python='' clear=() candidates=(python3 python3.12 python3.11 python)
  if [[ ${PYTHON:-} ]]; then candidates=("$PYTHON"); fi
  if [[ -e $venv/pyvenv.cfg ]]; then clear=(--clear); fi # only ever empties an environment, no other folder
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c "import ensurepip, venv; $suits" 2>/dev/null; then python=$candidate; break; fi
  done
  if [[ -z $python ]]; then
    found=$("${PYTHON:-python3}" --version 2>&1 | tail -n 1 || true)
    echo "error: Python 3.11 or 3.12 with its venv module is needed, found: ${found:-none}; install one, or name it: PYTHON=/path/to/python3.11 bash scripts/setup.sh" >&2
    exit 2
  fi
  "$python" -m venv "${clear[@]}" "$venv"
fi
