#!/usr/bin/env bash
# SFT: supervised fine-tuning on bootstrapped dialogues.
# usage: bash scripts/run_sft.sh [CONFIG] [key=value ...] [--dry-run] [--help]
# Several GPUs: one process a GPU is launched; GPUS=N limits them, NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT span nodes.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
gpus=${GPUS:-$(nvidia-smi -L 2>/dev/null | grep -c GPU || true)}
if [[ " $* " != *" --dry-run "* && " $* " != *" --help "* ]] && ((gpus * ${NNODES:-1} > 1)); then
  place=(--standalone)
  if ((${NNODES:-1} > 1)); then
    place=(--nnodes "$NNODES" --node-rank "$NODE_RANK" --master-addr "$MASTER_ADDR" --master-port "$MASTER_PORT")
  fi
  exec torchrun "${place[@]}" --nproc-per-node "$gpus" -m training.sft.run "$@"
fi
exec python -m training.sft.run "$@"
