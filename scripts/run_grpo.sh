#!/usr/bin/env bash
# Stage III, GRPO: tutor-in-the-loop reinforcement learning with verl, from an SFT checkpoint.
# usage: bash scripts/run_grpo.sh [CONFIG] [key=value ...] [--dry-run] [--help]
# CONFIG extends verl's ppo_trainer (configs/grpo/); every key of verl can be set. Several nodes: start Ray on them first, then give
# +ray_kwargs.ray_init.address=auto and trainer.nnodes=N.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
exec python -m training.grpo.run "$@"
