#!/usr/bin/env bash
# The whole method on the miniature world, from set-up to the results table: bash scripts/quickstart.sh [--root DIR] [--seed N]
# DIR (default outputs/quickstart) holds everything; killed and started again, it continues from where it was.
# A second run of a finished quickstart only prints the table. About 16 minutes and 8 GiB on two CPU cores.
# shellcheck source=scripts/signals.sh
source "$(dirname "${BASH_SOURCE[0]}")/signals.sh"
cd "$(dirname "$0")/.."
root=outputs/quickstart seed=0
while (($#)); do
  case "$1" in
    --root) root=${2:?--root needs a folder}; shift 2 ;;
    --seed) seed=${2:?--seed needs a number}; shift 2 ;;
    --help | -h) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
    --dry-run) dry=1; shift ;;
    *) echo "error: unknown argument '$1'; allowed: --root DIR, --seed N, --dry-run, --help" >&2; exit 2 ;;
  esac
done

stage() { # NAME COMMAND... : runs one stage and records its seconds and peak memory
  if [[ ${dry:-} ]]; then echo "== $1"; "${@:2}" --dry-run; return; fi
  echo "== $1"
  foreground python -m miniature.measure "$1" --root "$root" -- "${@:2}"
}

source scripts/cpu_set.sh
[[ ${dry:-} ]] || foreground bash scripts/setup.sh cpu
source scripts/common.sh
export GPUS=1 # the miniature trains in one process, on the CPU
stage seeds python -m miniature.seeds "root=$root" "seed=$seed"
stage warm_up python -m miniature.warm_up "root=$root" "seed=$seed"
stage data bash scripts/run_data_construction.sh configs/data_construction/miniature.yaml "root=$root" "seed=$seed"
stage sft bash scripts/run_sft.sh configs/sft/miniature.yaml "root=$root" "seed=$seed"
stage grpo bash scripts/run_grpo.sh configs/grpo/miniature.yaml "root=$root" "data.seed=$seed"
stage evaluation bash scripts/run_evaluation.sh configs/evaluation/miniature.yaml "root=$root" "sampling.seed=$seed"
[[ ${dry:-} ]] || foreground python -m miniature.summary --root "$root"
