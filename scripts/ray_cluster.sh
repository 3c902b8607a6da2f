#!/usr/bin/env bash
# Starts, joins or stops the Ray cluster for Stage III on several nodes.
# usage: bash scripts/ray_cluster.sh head | worker HEAD_IP | status | stop   [--dry-run] [--help]
# 1. first node:       bash scripts/ray_cluster.sh head
# 2. every other node: bash scripts/ray_cluster.sh worker HEAD_IP
# 3. first node:       bash scripts/run_grpo.sh CONFIG trainer.nnodes=N +ray_kwargs.ray_init.address=auto
# All nodes need this repository at the same path with the same .venv, a shared folder for root=..., and, where the tutor asks for
# a key, TUTOR_API_KEY in the environment of step 1 and 2. RAY_PORT (6379) picks the head's port.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
dry='' arguments=()
for item in "$@"; do if [[ $item == --dry-run ]]; then dry=1; else arguments+=("$item"); fi; done
set -- "${arguments[@]}"
port=${RAY_PORT:-6379}
case ${1:-} in
  head) command=(ray start --head --port "$port" --include-dashboard=false --disable-usage-stats) ;;
  worker)
    if [[ -z ${2:-} ]]; then echo "error: no address of the head node; give it: ray_cluster.sh worker HEAD_IP" >&2; exit 2; fi
    command=(ray start --address "$2:$port" --disable-usage-stats)
    ;;
  status | stop) command=(ray "$1") ;;
  --help | -h) sed -n '2,8s/^# \{0,1\}//p' scripts/ray_cluster.sh; exit 0 ;;
  *) echo "error: unknown command '${1:-}'; allowed: head, worker HEAD_IP, status, stop, --help" >&2; exit 2 ;;
esac
export TRANSFER_QUEUE_ENABLE=1 # verl's workers inherit it from the node's Ray
if [[ $dry ]]; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
exec "${command[@]}"
