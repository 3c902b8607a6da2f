"""What the processes of a GRPO run are to the user, and what makes each need less memory. No engine."""

ROLES = {  # a part of the actor's class name -> what it is to the user
    "vLLM": "rollout engine",
    "VLLM": "rollout engine",
    "EngineCore": "rollout engine",
    "SGLang": "rollout engine",
    "AgentLoopWorker": "agent-loop worker",
    "TaskRunner": "trainer",
    "WorkerDict": "trainer worker",
    "ActorRollout": "trainer worker",
}
ADVICE = {
    "rollout engine": "lower actor_rollout_ref.rollout.max_num_seqs or max_model_len (on a CPU "
    "actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes), or use a machine with more memory",
    "trainer worker": "lower actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu and the two "
    "log_prob_micro_batch_size_per_gpu, turn param_offload and optimizer_offload off where the GPU has room (they take "
    "the machine's memory), or use a machine with more memory",
    "agent-loop worker": "lower actor_rollout_ref.rollout.agent.num_workers, or use a machine with more memory",
}
OTHER_ADVICE = "lower data.train_batch_size or actor_rollout_ref.rollout.n, or use a machine with more memory"


def role_of(name: str) -> str:
    """The role of a process, from the class of its Ray actor or from its title."""
    return next((role for part, role in ROLES.items() if part in name), "worker")


def advice(role: str) -> str:
    """What to change when a process of this role needs too much memory."""
    return ADVICE.get(role, OTHER_ADVICE)
