"""What verl 0.9.1 and vLLM 0.24.0 need of us to train: attention and log-probs, fixes, and a CPU in a GPU's place."""

GROUP_TIMEOUT = "SAFER_STEER_GROUP_TIMEOUT_S"  # environment: `actor_rollout_ref.nccl_timeout` for verl's workers
