#!/usr/bin/env bash
# Rehearsal: what a run that takes days would meet on this machine, found in minutes.
# usage: bash scripts/rehearse.sh CONFIG ... [key=value ...] [--dry-run] [--help]
# CONFIG (relative to the repository): of data construction, SFT, GRPO and evaluation, as many as wanted: those that will be run one after another.
# device=cpu layers=N rehearses a GPU config on a CPU with N layers; rehearse.processor=PATH names the model's tokenizer.
# Ends with a table and a forecast, and with exit code 1 when something would break: docs/rehearsal.md.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
start python -m rehearsal.run "$@"
