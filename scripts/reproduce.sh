#!/usr/bin/env bash
# All cells of the paper's tables: in miniature over seeds, with a verdict on each of its claims, or at the paper's size on GPUs.
#
#   bash scripts/reproduce.sh miniature [--seeds N] [--only CELL[,CELL...]] [--root DIR] [--jobs N] [--dry-run]
#   bash scripts/reproduce.sh miniature --phase [...]    real runs for the phase diagram: released TCSR against the mean
#   bash scripts/reproduce.sh paper [--only SIZE/CELL[,...]] [--root DIR] [--dry-run]    Tables 2-5, 8, 9, Figure 4; 3B and 7B
#
# --dry-run prints every command, of the paper with GPU hours, calls and cost. Killed and started again, it continues from where it
# was. The miniature writes DIR (outputs/reproduce)/claims.json and miniature.md, the paper DIR (outputs/paper)/report/.
# Sizes, and the paper's baselines by checkpoint or endpoint: configs/reproduce/WORLD.yaml, or --config FILE. Relative paths are below
# the repository.
set -euo pipefail
if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
fi
case ${1:-} in
  miniature)
    # shellcheck source=scripts/cpu_set.sh
    source "$(dirname "${BASH_SOURCE[0]}")/cpu_set.sh"
    export GPUS=1 ;; # it trains in one process, on the CPU
  paper) ;;
  *)
    echo "error: unknown world '${1:-}'; allowed: miniature, paper (see --help)" >&2
    exit 2 ;;
esac
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
start python -m reproduce.run "$@"
