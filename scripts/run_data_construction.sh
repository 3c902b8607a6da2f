#!/usr/bin/env bash
# Data construction: Stage I (probe, expand, red-team), Stage II (red-blue bootstrapping), assembly of the STEER splits.
# usage: bash scripts/run_data_construction.sh [CONFIG] [key=value ...] [--dry-run] [--help]
# CONFIG: configs/data_construction/default.yaml (the paper's, default), single_turn.yaml, geometry3k.yaml, miniature.yaml. Run it again to continue.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
start python -m data_construction.pipeline "$@"
