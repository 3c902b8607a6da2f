"""verl 0.9.1 and vLLM 0.24.0 on a machine without a GPU, and fixes of verl that GPUs need too."""

GROUP_TIMEOUT = "SAFER_STEER_GROUP_TIMEOUT_S"  # environment: `actor_rollout_ref.nccl_timeout` for verl's workers
