#!/usr/bin/env bash
# The method at the real widths, vocabulary and picture sizes of Qwen2.5-VL-3B on a CPU: rehearsals with random weights.
# usage: bash benchmarks/real_widths.sh [--out DIR] [--help] PART ... [key=value ...]
#   two_layers  SFT and GRPO as configured: every weight trained, 2 layers of text and of vision
#   lora        SFT, GRPO and evaluation with LoRA, each on the export before it; 4 layers of each
#   full        SFT with LoRA and evaluation of its export: all 36 + 32 layers, in bf16 (a CPU with AVX512_BF16: `lscpu`)
# key=value: of the rehearsal or the stages (docs/rehearsal.md), such as rehearse.processor=FOLDER, the model's tokenizer;
# without it a local stand-in of the same vocabulary is made. Each part leaves its table and forecast in DIR/PART/table.md
# (DIR: outputs/real_widths, relative to the repository).
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)} # large matrices, unlike the miniature's
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"
out=outputs/real_widths parts=() keys=()
while (($#)); do
  case $1 in
    --help | -h) sed -n '2,9s/^# //p' benchmarks/real_widths.sh; exit 0 ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    two_layers | lora | full) parts+=("$1"); shift ;;
    *=*) keys+=("$1"); shift ;;
    *) echo "error: unknown argument '$1'; allowed: two_layers, lora, full, key=value, --out DIR, --help" >&2; exit 2 ;;
  esac
done
sft=configs/sft/qwen2_5_vl_3b.yaml grpo=configs/grpo/qwen2_5_vl_3b.yaml evaluation=configs/evaluation/steer_bench.yaml
lora=(lora.rank=16 lora.alpha=32) adapters=() failed=0
for key in lora_rank=16 lora_alpha=32 lora.merge=true; do adapters+=("actor_rollout_ref.model.$key"); done
for part in "${parts[@]:-two_layers}"; do
  case $part in
    two_layers) words=("$sft" "$grpo" layout=one_node layers=2) ;;
    lora) words=("$sft" "$grpo" "$evaluation" layout=one_node layers=4 "${lora[@]}" "${adapters[@]}") ;;
    full) words=("$sft" "$evaluation" rehearse.dtype=bfloat16 "${lora[@]}") ;;
  esac
  foreground bash scripts/rehearse.sh "${words[@]}" device=cpu "rehearse.folder=$out/$part" "${keys[@]}" || failed=1
done
exit "$failed"
