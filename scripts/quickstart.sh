#!/usr/bin/env bash
# The whole method on the miniature world, from set-up to the results table: bash scripts/quickstart.sh [--root DIR] [--seed N] [--tagged]
# DIR (default outputs/quickstart; relative to the repository) holds everything; killed and started again, it continues from where it was. About 8 minutes with the set-up and
# 7 GiB on two idle CPU cores. --tagged: with an answer format, system prompt and tags, as the paper's models have (in a DIR of its own).
# shellcheck source=scripts/signals.sh
source "$(dirname "${BASH_SOURCE[0]}")/signals.sh"
cd "$(dirname "$0")/.."
root=outputs/quickstart seed=0 base=() data=() sft=() grpo=() evaluation=()
while (($#)); do
  case "$1" in
    --root) root=${2:?--root needs a folder}; shift 2 ;;
    --seed) seed=${2:?--seed needs a number}; shift 2 ;;
    --tagged)
      format=configs/answer_format/miniature.yaml data=("bootstrap.answer_format=$format") base=("answer_format=$format")
      sft=("${base[@]}") grpo=("safer_steer.answer_format=$format" safer_steer.turns.{max,min}_tokens=64 data.max_prompt_length=96
        data.max_response_length=448 actor_rollout_ref.rollout.max_model_len=544)
      evaluation=(sampling.max_tokens=64 serving.max_model_len=544); shift ;;
    --help | -h) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
    --dry-run) dry=1; shift ;;
    *) echo "error: unknown argument '$1'; allowed: --root DIR, --seed N, --tagged, --dry-run, --help" >&2; exit 2 ;;
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
stage warm_up python -m miniature.warm_up "root=$root" "seed=$seed" "${base[@]}"
stage data bash scripts/run_data_construction.sh configs/data_construction/miniature.yaml "root=$root" "seed=$seed" "${data[@]}"
stage sft bash scripts/run_sft.sh configs/sft/miniature.yaml "root=$root" "seed=$seed" "${sft[@]}"
stage grpo bash scripts/run_grpo.sh configs/grpo/miniature.yaml "root=$root" "data.seed=$seed" "${grpo[@]}"
stage evaluation bash scripts/run_evaluation.sh configs/evaluation/miniature.yaml "root=$root" "sampling.seed=$seed" "${evaluation[@]}"
[[ ${dry:-} ]] || foreground python -m miniature.summary --root "$root"
