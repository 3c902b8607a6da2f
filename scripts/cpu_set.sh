#!/usr/bin/env bash
# Sourced by what runs on a CPU (quickstart, tests, reproduction): picks the CPU set's environment and hides the GPUs.
# It is .venv, or .venv-cpu where .venv is the GPU set's (a machine with a GPU, or .venv holds that set); VENV wins.
# Not for running by itself; `bash scripts/cpu_set.sh --help` prints this.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  sed -n '2,4s/^# //p' "$0"
  exit 0
fi
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -z ${VENV:-} ]]; then
  VENV=.venv
  if compgen -G '.venv/lib/python3*/site-packages/vllm-[0-9]*.dist-info' >/dev/null ||
    nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then VENV=.venv-cpu; fi
fi
export VENV CUDA_VISIBLE_DEVICES=
