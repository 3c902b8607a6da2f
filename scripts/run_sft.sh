#!/usr/bin/env bash
# SFT: supervised fine-tuning on bootstrapped dialogues.
# usage: bash scripts/run_sft.sh [CONFIG] [key=value ...] [--dry-run] [--help]
# CONFIG: configs/sft/qwen2_5_vl_3b.yaml (the paper's, default), ... Several GPUs: one process per visible GPU is launched (CUDA_VISIBLE_DEVICES); GPUS=N says how many, on a CPU too.
# Several nodes: the same command on each, with NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT.
# LAUNCHER=torchrun (default), accelerate or deepspeed (several nodes: HOSTFILE too); each takes training.deepspeed of the config.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
gpus=${GPUS:-$("${hold[@]}" python -m safer_steer.gpus)}
nodes=${NNODES:-1} rank=${NODE_RANK:-0} address=${MASTER_ADDR:-127.0.0.1} port=${MASTER_PORT:-29500}
if [[ " $* " == *" --dry-run "* || " $* " == *" --help "* ]] || ((gpus * nodes <= 1)); then
  start python -m training.sft.run "$@"
fi
place=(--master-addr "$address" --master-port "$port")
((nodes > 1)) || place=(--standalone)
case ${LAUNCHER:-torchrun} in
  torchrun)
    start python -m safer_steer.launcher torchrun --nnodes "$nodes" --node-rank "$rank" --nproc-per-node "$gpus" "${place[@]}" -m training.sft.run "$@" ;;
  accelerate)
    start python -m safer_steer.launcher accelerate launch --num_processes "$((gpus * nodes))" --num_machines "$nodes" --machine_rank "$rank" \
      --main_process_ip "$address" --main_process_port "$port" --multi_gpu --mixed_precision no --dynamo_backend no -m training.sft.run "$@" ;;
  deepspeed)
    place=(--master_port "$port")
    ((nodes > 1)) && place+=(--hostfile "${HOSTFILE:?names the nodes for DeepSpeed}" --no_ssh --node_rank "$rank" --master_addr "$address")
    start python -m safer_steer.launcher deepspeed --no_local_rank --num_gpus "$gpus" "${place[@]}" --module training.sft.run "$@" ;;
  *)
    echo "error: LAUNCHER '$LAUNCHER' is unknown; allowed: torchrun, accelerate, deepspeed" >&2
    exit 2 ;;
esac
