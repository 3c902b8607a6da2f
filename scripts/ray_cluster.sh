#!/usr/bin/env bash
# Starts, joins or stops the Ray cluster for Stage III on several nodes.
# usage: bash scripts/ray_cluster.sh head | worker HEAD | status | stop   [--block] [--dry-run] [--help]
# 1. first node:       bash scripts/ray_cluster.sh head
# 2. every other node: bash scripts/ray_cluster.sh worker HEAD      (the first one's name or address)
# 3. first node:       bash scripts/run_grpo.sh CONFIG trainer.nnodes=N +ray_kwargs.ray_init.address=auto safer_steer.tutor.base_url=...
# --block stays until the node's part ends, as a batch system wants it. All nodes need this repository at the same path with the
# same .venv, a shared folder for root=..., and, where the tutor asks for a key, TUTOR_API_KEY in the environment of steps 1 and 2.
# RAY_PORT (6379) picks the head's port.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
dry='' arguments=() block=()
for item in "$@"; do
  case $item in --dry-run) dry=1 ;; --block) block=(--block) ;; *) arguments+=("$item") ;; esac
done
set -- "${arguments[@]}"
port=${RAY_PORT:-6379}
case ${1:-} in
  head) command=(ray start --head --port "$port" --include-dashboard=false --disable-usage-stats "${block[@]}") ;;
  worker)
    if [[ -z ${2:-} ]]; then echo "error: no address of the head node; give it: ray_cluster.sh worker HEAD" >&2; exit 2; fi
    command=(ray start --address "$2:$port" --disable-usage-stats "${block[@]}")
    ;;
  status | stop) command=(ray "$1") ;;
  --help | -h) sed -n '2,9s/^# \{0,1\}//p' scripts/ray_cluster.sh; exit 0 ;;
  *) echo "error: unknown command '${1:-}'; allowed: head, worker HEAD, status, stop, --help" >&2; exit 2 ;;
esac
if [[ $dry ]]; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
exec "${command[@]}"
