#!/usr/bin/env bash
# Other trainers on our exports, by hand: each in an environment of its own trains three steps on 20 dialogues with tiny random
# models made here, and its ids, picture grids and labels are compared with those of SFT; inspect_ai reads an evaluation's logs.
# usage: bash benchmarks/peers.sh [--out DIR] [--logs FOLDER] [--help] [FAMILY ...] [PEER ...]
#   FAMILY: qwen2_5_vl qwen3_vl (default: both); PEER: trl llama_factory ms_swift verl_sft (default: all)
#   --logs: a folder of *.eval that run_export.sh wrote
# Runs on a CPU; needs a network for packages, about 9 GB of disk in DIR (outputs/peers, relative to the repository), and no model hub. Ends with the tables.
# shellcheck source=scripts/cpu_set.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/cpu_set.sh"
# shellcheck source=scripts/common.sh
source scripts/common.sh
out=outputs/peers logs='' families=() peers=()
while (($#)); do
  case $1 in
    --help | -h) sed -n '2,7s/^# //p' benchmarks/peers.sh; exit 0 ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    --logs) logs=${2:?--logs needs a folder}; shift 2 ;;
    qwen2_5_vl | qwen3_vl) families+=("$1"); shift ;;
    trl | llama_factory | ms_swift | verl_sft) peers+=("$1"); shift ;;
    *) echo "error: unknown argument '$1'; allowed: qwen2_5_vl, qwen3_vl, trl, llama_factory, ms_swift, verl_sft, --out DIR," \
      "--logs FOLDER, --help" >&2; exit 2 ;;
  esac
done
mkdir -p "$out"
out=$(realpath "$out")
declare -A packages=([trl]=trl==1.16.0 [llama_factory]=llamafactory==0.9.5 [ms_swift]=ms-swift==4.6.0 [verl_sft]='verl[verl-core]==0.9.1'
  [inspect]=inspect_ai==0.3.285)
declare -A llama_factory_template=([qwen2_5_vl]=qwen2_vl [qwen3_vl]=qwen3_vl_nothink)

install() { # PEER PACKAGE... : its environment, unless it is there
  [[ -e $out/envs/$1/ready ]] && return
  uv venv --quiet --clear --python "$(command -v python)" "$out/envs/$1"
  uv pip install --quiet --python "$out/envs/$1/bin/python" "${packages[$1]}" "${@:2}"
  touch "$out/envs/$1/ready"
}

three_steps() { # PEER FAMILY : the command of docs/peers.md, in small
  local bin=$out/envs/$1/bin family=$2 folder=$out/$2 exports=$out/$2/exports model=$out/$2/model
  case $1 in
    trl) "$bin/trl" sft --model_name_or_path "$model" --dataset_name "$exports/messages" --assistant_only_loss true --max_length 4096 \
      --output_dir "$folder/trl" --max_steps 3 --per_device_train_batch_size 4 --logging_steps 1 --report_to none --use_cpu true ;;
    llama_factory) "$bin/llamafactory-cli" train --stage sft --do_train true --model_name_or_path "$model" \
      --template "${llama_factory_template[$family]}" --dataset_dir "$exports/llama_factory" --dataset safer_steer \
      --image_max_pixels 262144 --cutoff_len 4096 --finetuning_type full --output_dir "$folder/lf" --max_steps 3 \
      --per_device_train_batch_size 4 --logging_steps 1 --report_to none --use_cpu true ;;
    ms_swift) MAX_PIXELS=262144 "$bin/swift" sft --model "$model" --model_type "$family" --template "$family" \
      --dataset "$exports/ms_swift/ms_swift.parquet" --tuner_type full --max_length 4096 --output_dir "$folder/swift" --max_steps 3 \
      --per_device_train_batch_size 4 --logging_steps 1 --report_to none --use_cpu true --torch_dtype float32 \
      --gradient_accumulation_steps 1 ;;
    # Our CPU platform, verl has none; without the 5 dialogues of text alone, which its collator cannot mix with others.
    verl_sft) PYTHONPATH=$PWD/verl VERL_PLATFORM=cpu VERL_USE_EXTERNAL_MODULES=safer_steer_verl.platform.cpu VERL_ENGINE_DEVICE=cuda \
      "$bin/torchrun" --nproc_per_node 1 -m verl.trainer.sft_trainer data.train_files="$exports/ms_swift/ms_swift.parquet" \
      data.max_length=4096 data.max_token_len_per_gpu=4096 model.path="$model" trainer.logger=console \
      trainer.default_local_dir="$folder/verl" checkpoint.save_contents=[hf_model] trainer.total_training_steps=3 \
      data.train_batch_size=4 data.train_max_samples=15 data.num_workers=1 trainer.resume_mode=disable trainer.device=cpu \
      engine.strategy=fsdp2 model.use_remove_padding=false +model.override_config.attn_implementation=sdpa ;;
  esac
}

((${#families[@]})) || families=(qwen2_5_vl qwen3_vl)
((${#peers[@]})) || peers=(trl llama_factory ms_swift verl_sft)
for peer in "${peers[@]}"; do install "$peer" torch{,audio}==2.11.0 torchvision==0.26.0 qwen-vl-utils==0.0.14; done
for family in "${families[@]}"; do
  rm -rf "${out:?}/$family" # what a peer made of an earlier tokenizer is no answer
  PYTHONPATH=$PYTHONPATH:tests/support python -m benchmarks.peers make "$family" "$out/$family"
  for peer in "${peers[@]}"; do
    env -u PYTHONPATH "$out/envs/$peer/bin/python" -P benchmarks/peers.py read "$peer" "$out/$family"
    PYTHONPATH='' three_steps "$peer" "$family"
  done
done
if [[ $logs ]]; then
  install inspect
  env -u PYTHONPATH "$out/envs/inspect/bin/python" -P benchmarks/peers.py logs "$logs"
fi
for family in "${families[@]}"; do python -m benchmarks.peers compare "$out/$family"; done
