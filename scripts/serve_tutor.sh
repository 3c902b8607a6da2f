#!/usr/bin/env bash
# Serves a Safety Tutor with vLLM, on this node, until Ctrl-C: an OpenAI-compatible endpoint for safer_steer.tutor.base_url.
# usage: bash scripts/serve_tutor.sh [--dry-run] [--help] [arguments of `vllm serve` ...]
# environment: TUTOR_MODEL (Qwen/Qwen3-VL-32B-Instruct, Sec. 4.4; 66 GB in bf16), GPUS (all that are visible),
#   REPLICAS (1; copies behind one address, which share the GPUs), PORT (8000),
#   HOST (127.0.0.1: this node only; 0.0.0.0 for callers on other nodes, and then TUTOR_API_KEY is needed),
#   TUTOR_CONTEXT (16384 tokens: a whole dialogue, its pictures and the verdict), TUTOR_IMAGES (pictures a dialogue, 10) of
#   TUTOR_MAX_PIXELS (1003520 px, the most that our stages send; room for the model's own limit would be 16 times as much),
#   TUTOR_API_KEY (then asked of every caller). Several nodes: start it on each, and give base_url all addresses as a list.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
dry=
case ${1:-} in
  --help | -h) sed -n '2,9s/^# \{0,1\}//p' scripts/serve_tutor.sh; exit 0 ;;
  --dry-run) dry=1; shift ;;
esac
host=${HOST:-127.0.0.1}
if [[ $host != 127.* && $host != localhost && $host != ::1 && -z ${TUTOR_API_KEY:-} ]]; then
  echo "error: HOST=$host serves everyone on the network; set TUTOR_API_KEY, here and where GRPO runs, or leave HOST out" >&2
  exit 2
fi
gpus=${GPUS:-$("${hold[@]}" python -m safer_steer.gpus)}
model=${TUTOR_MODEL:-Qwen/Qwen3-VL-32B-Instruct} replicas=${REPLICAS:-1}
split=$((gpus > replicas ? gpus / replicas : 1)) # GPUs of one replica
if ((gpus % replicas)); then echo "error: REPLICAS=$replicas does not divide $gpus GPUs" >&2; exit 2; fi
"${hold[@]}" python -m safer_steer.model_shape "$model" "$split"
command=(vllm serve "$model" --host "$host" --port "${PORT:-8000}" --enable-prefix-caching --generation-config vllm
  --tensor-parallel-size "$split" --data-parallel-size "$replicas" --max-model-len "${TUTOR_CONTEXT:-16384}"
  --limit-mm-per-prompt "{\"image\": ${TUTOR_IMAGES:-10}, \"video\": 0}" --mm-processor-kwargs "{\"max_pixels\": ${TUTOR_MAX_PIXELS:-1003520}}" "$@")
if [[ $dry ]]; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
if ((gpus == 0)); then
  echo "error: no GPU is visible (nvidia-smi, CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-unset}); run this on the tutor's GPU node, or use --dry-run to see the command" >&2
  exit 2
fi
if [[ ${TUTOR_API_KEY:-} ]]; then export VLLM_API_KEY=$TUTOR_API_KEY; fi # not on the command line, where every user sees it
exec "${command[@]}"
