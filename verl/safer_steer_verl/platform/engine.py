"""What verl's worker processes need of us, loaded through `actor_rollout_ref.model.external_lib`.

The CPU engine, and three fixes that GPUs need too: position ids, mini-batches without any token, and TRL's missing
model.
"""

import os

from verl.models.transformers import monkey_patch
from verl.workers import engine_workers
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl

from safer_steer_verl.platform.position_ids import install as install_position_id_fix

CPU = "cpu"


def register_cpu_engine() -> None:
    """Registers verl's FSDP engine for device `cpu`.

    The reference model asks for `CPUOffloadPolicy(pin_memory=True)`; pinning needs an accelerator.
    """
    if CPU in EngineRegistry._engines["language_model"]["fsdp2"]:
        return
    policy = transformer_impl.CPUOffloadPolicy
    transformer_impl.CPUOffloadPolicy = lambda pin_memory=False: policy(pin_memory=False)
    register = EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device=CPU)
    register(transformer_impl.FSDPEngineWithLMHead)


def guard_empty_mini_batches() -> None:
    """A mini-batch whose trajectories are all masked has no token: the loss is then 0, not 0 / 0."""
    ppo_loss = engine_workers.ppo_loss
    if getattr(ppo_loss, "guards_empty", False):
        return

    def guarded(config, model_output, data, dp_group=None):
        if data["batch_num_tokens"] == 0:
            from verl.utils import tensordict_utils

            tensordict_utils.assign_non_tensor(data, batch_num_tokens=1)
        return ppo_loss(config, model_output, data, dp_group)

    guarded.guards_empty = True
    engine_workers.ppo_loss = guarded


def ignore_trl() -> None:
    """Keeps verl from patching TRL's value-head model, which TRL 1.16 lacks: the import would end the worker."""
    monkey_patch.is_trl_available = lambda: False


if os.environ.get("VERL_PLATFORM") == CPU:
    register_cpu_engine()
ignore_trl()
install_position_id_fix()
guard_empty_mini_batches()
