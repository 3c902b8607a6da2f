"""What verl's worker processes need of us, loaded through `actor_rollout_ref.model.external_lib`.

The training engine of every device: attention as chosen, log-probabilities in fp32. And fixes of verl for all devices:
position ids, micro-batches of text alone, mini-batches without any token, TRL's missing model, the process group's
time-out. Signs of life and dead engines are reported from here.
"""

import os

from verl.models.transformers import monkey_patch
from verl.workers import engine_workers
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl

from safer_steer_verl import beats
from safer_steer_verl.platform import GROUP_TIMEOUT, engine_deaths, varlen_attention
from safer_steer_verl.platform.attention import VARLEN_IMPLEMENTATION
from safer_steer_verl.platform.log_prob_head import end_in_log_probs
from safer_steer_verl.platform.position_ids import install as install_position_id_fix
from safer_steer_verl.platform.text_rows import install as install_text_row_fix

CPU = "cpu"


class Engine(transformer_impl.FSDPEngineWithLMHead):
    """verl's FSDP engine with our attention and log-probabilities: actor, old log-probs and reference model."""

    def _build_module(self):
        if self.model_config.override_config.get("attn_implementation") == VARLEN_IMPLEMENTATION:
            varlen_attention.install()
        module = super()._build_module()
        # verl leaves the name of this run's kernels in the config, and so in every checkpoint, which then would load
        # nowhere else.
        vars(module.config).pop("attn_implementation", None)
        return end_in_log_probs(module)


def register_engine() -> None:
    """Makes `Engine` the one that verl takes for fsdp and fsdp2, on a GPU and on a CPU."""
    for backend in ("fsdp", "fsdp2"):
        engines = EngineRegistry._engines["language_model"][backend]
        engines["cuda"] = engines[CPU] = Engine


def pin_no_memory() -> None:
    """The reference model asks for `CPUOffloadPolicy(pin_memory=True)`; pinning needs an accelerator."""
    policy = transformer_impl.CPUOffloadPolicy
    transformer_impl.CPUOffloadPolicy = lambda pin_memory=False: policy(pin_memory=False)


def guard_empty_mini_batches() -> None:
    """A mini-batch whose trajectories are all masked has no token: the loss is then 0, not 0 / 0."""
    ppo_loss = engine_workers.ppo_loss

    def guarded(config, model_output, data, dp_group=None):
        if data["batch_num_tokens"] == 0:
            from verl.utils import tensordict_utils

            tensordict_utils.assign_non_tensor(data, batch_num_tokens=1)
        return ppo_loss(config, model_output, data, dp_group)

    engine_workers.ppo_loss = guarded


def ignore_trl() -> None:
    """Keeps verl from patching TRL's value-head model, which TRL 1.16 lacks: the import would end the worker."""
    monkey_patch.is_trl_available = lambda: False


def set_group_timeout() -> None:
    """Gives the trainer's process group `actor_rollout_ref.nccl_timeout`.

    verl 0.9.1 has the key but does not read it: ranks that wait for the first one to write a checkpoint would give up
    after torch's 10 minutes.
    """
    initialize = engine_workers.initialize_global_process_group_ray

    def with_timeout(timeout_second=None, backend=None):
        seconds = os.environ.get(GROUP_TIMEOUT)
        return initialize(timeout_second or (int(seconds) if seconds else None), backend)

    engine_workers.initialize_global_process_group_ray = with_timeout


register_engine()
if os.environ.get("VERL_PLATFORM") == CPU:
    pin_no_memory()
ignore_trl()
install_position_id_fix()
install_text_row_fix()
guard_empty_mini_batches()
set_group_timeout()
beats.install()
engine_deaths.install()
