#!/usr/bin/env bash
# The paper in miniature: trains and evaluates every cell of its tables over seeds, then says which of its claims hold.
#
#   bash scripts/reproduce.sh miniature [--seeds N] [--only CELL[,CELL...]] [--root DIR] [--jobs N] [--dry-run]
#   bash scripts/reproduce.sh miniature --sweep | --fairer [...]    more cells: GRPO's variants on seed 0; fairer tests of C4
#
# Writes DIR (default outputs/reproduce)/claims.json and miniature.md; killed and started again, it continues from where it was.
# --write-docs also writes docs/miniature.md with its pictures. Sizes: configs/reproduce/miniature.yaml, or --config FILE.
set -euo pipefail
if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
fi
if [[ ${1:-} != miniature ]]; then
  echo "error: unknown world '${1:-}'; allowed: miniature (see --help)" >&2
  exit 2
fi
# shellcheck source=scripts/cpu_set.sh
source "$(dirname "${BASH_SOURCE[0]}")/cpu_set.sh"
# shellcheck source=scripts/common.sh
source scripts/common.sh
export GPUS=1 # the miniature trains in one process, on the CPU
start python -m miniature.reproduce.run "${@:2}"
