#!/usr/bin/env bash
# Evaluation: every model plays the benchmarks, the judge scores every answer, the report shows numbers and dialogues.
#
#   bash scripts/run_evaluation.sh [CONFIG] [key=value ...] [--dry-run] [--help]
#
# CONFIG: configs/evaluation/miniature.yaml (default) or steer_bench.yaml. Run it again to go on after an interruption.
# Keys of remote judges come from the environment: JUDGE_API_KEY, else OPENAI_API_KEY.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
exec python -m evaluation.run "$@"
