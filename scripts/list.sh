#!/usr/bin/env bash
# What there is to name in a config: benchmarks, sources, strategies, prompts, models.
# usage: bash scripts/list.sh [benchmarks|sources|strategies|prompts|models ...] [--help]
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
start python -m safer_steer.listing "$@"
