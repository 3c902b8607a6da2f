#!/usr/bin/env bash
# Other trainers on our exports, by hand: each in an environment of its own trains three steps on 20 dialogues with a tiny random
# Qwen2.5-VL made here, and its ids, picture grids and labels are compared with those of SFT; inspect_ai reads an evaluation's logs.
# usage: bash benchmarks/peers.sh [--out DIR] [--logs FOLDER] [--help] [PEER ...]
#   PEER: trl llama_factory ms_swift verl_sft (default: all); --logs: a folder of *.eval that run_export.sh wrote
# Runs on a CPU; needs a network for packages, about 6 GB of disk in DIR (outputs/peers), and no model hub. Ends with the table.
# shellcheck source=scripts/cpu_set.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/cpu_set.sh"
# shellcheck source=scripts/common.sh
source scripts/common.sh
out=outputs/peers logs='' peers=()
while (($#)); do
  case $1 in
    --help | -h) sed -n '2,6s/^# //p' benchmarks/peers.sh; exit 0 ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    --logs) logs=${2:?--logs needs a folder}; shift 2 ;;
    trl | llama_factory | ms_swift | verl_sft) peers+=("$1"); shift ;;
    *) echo "error: unknown argument '$1'; allowed: trl, llama_factory, ms_swift, verl_sft, --out DIR, --logs FOLDER, --help" >&2; exit 2 ;;
  esac
done
mkdir -p "$out"
out=$(realpath "$out")
declare -A packages=([trl]=trl==1.16.0 [llama_factory]=llamafactory==0.9.5 [ms_swift]=ms-swift==4.6.0 [verl_sft]=verl==0.9.1 [inspect]=inspect_ai==0.3.285)

install() { # PEER PACKAGE... : its environment, unless it is there
  [[ -e $out/envs/$1/ready ]] && return
  uv venv --quiet --clear --python "$(command -v python)" "$out/envs/$1"
  uv pip install --quiet --python "$out/envs/$1/bin/python" "${packages[$1]}" "${@:2}"
  touch "$out/envs/$1/ready"
}

three_steps() { # PEER : the command of docs/peers.md, in small
  local bin=$out/envs/$1/bin exports=$out/exports model=$out/model
  case $1 in
    trl) "$bin/trl" sft --model_name_or_path "$model" --dataset_name "$exports/messages" --assistant_only_loss true --max_length 4096 \
      --output_dir "$out/trl" --max_steps 3 --per_device_train_batch_size 4 --logging_steps 1 --report_to none --use_cpu true ;;
    llama_factory) "$bin/llamafactory-cli" train --stage sft --do_train true --model_name_or_path "$model" --template qwen2_vl \
      --dataset_dir "$exports/llama_factory" --dataset safer_steer --image_max_pixels 262144 --cutoff_len 4096 --finetuning_type full \
      --output_dir "$out/lf" --max_steps 3 --per_device_train_batch_size 4 --logging_steps 1 --report_to none --use_cpu true ;;
    ms_swift) MAX_PIXELS=262144 "$bin/swift" sft --model "$model" --model_type qwen2_5_vl --template qwen2_5_vl --dataset "$exports/ms_swift/ms_swift.parquet" \
      --tuner_type full --max_length 4096 --output_dir "$out/swift" --max_steps 3 --per_device_train_batch_size 4 --logging_steps 1 \
      --report_to none --use_cpu true --torch_dtype float32 --gradient_accumulation_steps 1 ;;
  esac
}

python -m benchmarks.peers make "$out"
((${#peers[@]})) || peers=(trl llama_factory ms_swift verl_sft)
for peer in "${peers[@]}"; do
  install "$peer" torch{,audio}==2.11.0 torchvision==0.26.0 qwen-vl-utils==0.0.14
  env -u PYTHONPATH "$out/envs/$peer/bin/python" -P benchmarks/peers.py read "$peer" "$out"
  three_steps "$peer"
done
if [[ $logs ]]; then
  install inspect
  env -u PYTHONPATH "$out/envs/inspect/bin/python" -P benchmarks/peers.py logs "$logs"
fi
python -m benchmarks.peers compare "$out"
