#!/usr/bin/env bash
# Tries the GPU set on a machine without a GPU: installs it into a folder of its own (11 GB, about two minutes), runs every dry run,
# every import of the GPU path and every launcher up to the engine's own "no GPU visible", and removes the folder again.
# usage: bash scripts/check_gpu_set.sh [--in FOLDER] [--only dry_runs,imports,launchers] [--keep]
#   --in: where the folder is made (default: the system's for temporary files; 12 GB free); --keep leaves it, for another run
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")/.."
place=${TMPDIR:-/tmp} only=dry_runs,imports,launchers keep=''
while (($#)); do
  case $1 in
    --help | -h) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --in) place=${2:?--in needs a folder}; shift 2 ;;
    --only) only=${2:?--only needs parts}; shift 2 ;;
    --keep) keep=1; shift ;;
    *) echo "error: unknown argument '$1'; allowed: --in FOLDER, --only PARTS, --keep, --help" >&2; exit 2 ;;
  esac
done
folder=$place/safer-steer-gpu-set-$UID child=''
mkdir -p "$folder"
# shellcheck disable=SC2329 # the trap runs it
clean() {
  trap - EXIT INT TERM
  if [[ $child ]]; then kill -TERM -- "-$child" 2>/dev/null || true; wait "$child" 2>/dev/null || true; fi
  if [[ ! $keep ]]; then rm -rf "$folder"; fi
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export VENV=$folder/venv UV_CACHE_DIR=$folder/cache CUDA_VISIBLE_DEVICES='' TMPDIR=$folder/tmp
mkdir -p "$TMPDIR"
set -m # a child is a process group of its own, which an interruption ends as a whole
{ bash scripts/setup.sh gpu --no-device && source scripts/common.sh && python tests/gpu_set.py "$only"; } &
child=$!
set +m
wait "$child" && code=0 || code=$?
child=''
exit "$code"
