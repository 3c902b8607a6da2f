#!/usr/bin/env bash
# Export: finished dialogues for TRL, LLaMA-Factory, ms-swift or verl; an evaluation as inspect logs; model and dataset cards.
# usage: bash scripts/run_export.sh [CONFIG] [key=value ...] [--dry-run] [--help]
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
start python -m exports.run "$@"
