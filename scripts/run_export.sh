#!/usr/bin/env bash
# Export: finished dialogues as TRL messages, LLaMA-Factory ShareGPT or verl parquet.
# usage: bash scripts/run_export.sh [CONFIG] [key=value ...] [--dry-run] [--help]
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
start python -m training.exports.run "$@"
