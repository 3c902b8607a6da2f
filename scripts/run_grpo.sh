#!/usr/bin/env bash
# Stage III, GRPO: tutor-in-the-loop reinforcement learning with verl, from an SFT checkpoint.
# usage: bash scripts/run_grpo.sh [CONFIG] [key=value ...] [--dry-run] [--help]
# CONFIG (default: the paper's, configs/grpo/qwen2_5_vl_3b.yaml, which needs a layout) extends verl's ppo_trainer (configs/grpo/); every key of verl can be set. Run it again to continue after an interruption.
# ablation=no_tcsr|no_feedback_dynamics|no_bootstrapping|single_turn runs an ablation. Several nodes: scripts/ray_cluster.sh --help.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
start python -m training.grpo.run "$@"
