#!/usr/bin/env bash
# Every benchmark, one after another, and one table of all their figures: DIR/all.json and DIR/all.md.
# usage: bash benchmarks/run_all.sh [--quick] [--out DIR] [--help]
# --quick takes small sizes, to see that all of it works (a few minutes); without it about 20 minutes on two quiet cores.
# DIR is outputs/benchmarks, relative to the repository. Ends with 1 when a benchmark failed or missed its target; the table is written all the same.
# DATA (../shared/data) holds the samples that stage1_all_sources reads; without them it is skipped.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"
out=outputs/benchmarks quick='' data=${DATA:-../shared/data}
while (($#)); do
  case $1 in
    --help | -h) sed -n '2,6s/^# //p' benchmarks/run_all.sh; exit 0 ;;
    --quick) quick=1; shift ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    *) echo "error: unknown argument '$1'; allowed: --quick, --out DIR, --help" >&2; exit 2 ;;
  esac
done
export HF_HUB_OFFLINE=1
mkdir -p "$out"
failed=() skipped=() names=(llm_client stage1_memory kill_stage1 stage1_all_sources sft_throughput rollout evaluation)
for name in "${names[@]}"; do rm -f "$out/$name.json"; done # figures of an earlier run are none of this one

measure() { # NAME QUICK_ARGUMENTS FULL_ARGUMENTS
  local sizes
  if [[ $quick ]]; then read -ra sizes <<<"$2"; else read -ra sizes <<<"$3"; fi
  echo "== $1 ${sizes[*]}"
  # Exit code 1 with figures is a missed target, which the table shows.
  foreground python -m "benchmarks.$1" "${sizes[@]}" --out "$out/$1.json" || [[ -s $out/$1.json ]] || failed+=("$1")
}

measure llm_client "--scale 0.5 --rounds 1" ""
measure stage1_memory "--rows 200 1000" ""
measure kill_stage1 "--kills 3 --seeds 24" ""
if [[ -d $data/vlguard ]]; then measure stage1_all_sources "--data $data --seeds 8" "--data $data"; else skipped+=(stage1_all_sources); fi
measure sft_throughput "--rows 32 --rounds 1" ""
measure rollout "--trajectories 16 --turns 3 --median 0.2" ""
measure evaluation "--repeats 1 --dialogues 2000 --browser-dialogues 500" ""
python -m benchmarks.summary "$out" "${names[@]}" --failed "${failed[@]}" --skipped "${skipped[@]}"
