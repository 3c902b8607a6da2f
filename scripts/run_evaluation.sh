#!/usr/bin/env bash
# Evaluation: every model plays the benchmarks, the judge scores every answer, the report shows numbers and dialogues.
#
#   bash scripts/run_evaluation.sh [CONFIG] [key=value ...] [--dry-run] [--help]
#
# CONFIG: configs/evaluation/steer_bench.yaml (the paper's, default), single_turn.yaml or miniature.yaml. Run it again to continue.
# Keys come from the environment: JUDGE_API_KEY, JUDGE_<NAME>_API_KEY of a further judge, TUTOR_API_KEY, else OPENAI_API_KEY.
# To set any finished runs side by side: python -m evaluation.compare RUN [RUN ...] --output DIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
start python -m evaluation.run "$@"
