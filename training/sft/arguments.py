"""Our config in TRL's terms."""

import os
from datetime import timedelta
from pathlib import Path

from trl import SFTConfig as TrlConfig

from safer_steer.servers import free_port
from training.sft.config import SftConfig


def trl_config(config: SftConfig) -> TrlConfig:
    """TRL's arguments; under DeepSpeed they must be made before the model is loaded, so that ZeRO-3 can split it."""
    training = config.training
    if training.deepspeed and training.processes == 1:
        alone = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        for name, value in alone.items():  # what a launcher would have set
            os.environ.setdefault(name, str(value))
    if "tensorboard" in training.trackers:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(Path(config.output) / "tensorboard")
    arguments = TrlConfig(
        output_dir=str(Path(config.output) / "trainer"),
        run_name=config.output,
        num_train_epochs=training.epochs,
        per_device_train_batch_size=training.per_device_batch_size,
        per_device_eval_batch_size=training.per_device_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        lr_scheduler_type=training.scheduler,
        warmup_steps=training.warmup_ratio,  # below 1: a share of all steps
        max_grad_norm=training.max_grad_norm,
        bf16=training.precision == "bf16",
        use_cpu=config.device == "cpu",
        gradient_checkpointing=training.gradient_checkpointing,
        deepspeed=training.deepspeed_settings() if training.deepspeed else None,
        save_total_limit=training.keep_checkpoints,
        logging_steps=training.log_every,
        logging_nan_inf_filter=False,
        dataloader_num_workers=training.data_workers,
        report_to=list(training.trackers) or "none",
        seed=config.seed,
        max_length=None,  # rows are cut by whole turns before they come here
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        disable_tqdm=True,
        ddp_timeout=group_timeout(config),
        ddp_find_unused_parameters=False,  # the collator lets every part run in every step
        **_period("save", training.save_every),
        **(_period("eval", training.eval_every) if config.eval_share else {}),
    )
    if training.deepspeed:
        _start_deepspeed(config.device, group_timeout(config))
    return arguments


def group_timeout(config: SftConfig) -> int:
    """Seconds a rank waits for the others in one operation: longer than `stall_s`, whose watch says what happened."""
    return int(config.training.stall_s) + 600


def _start_deepspeed(device: str, timeout_s: int) -> None:
    """Lets DeepSpeed know the ranks before ZeRO-3 loads the model: on a CPU the trainer does not.

    Its shared-memory kernel for CPUs is for inference and would be compiled for minutes; gloo alone does.
    """
    import deepspeed.ops

    if device == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        dist_backend="gloo" if device == "cpu" else None, verbose=False, timeout=timedelta(seconds=timeout_s)
    )


def _period(name: str, every: str | int) -> dict[str, str | int]:
    """When to save or to evaluate."""
    return {f"{name}_strategy": "epoch"} if every == "epoch" else {f"{name}_strategy": "steps", f"{name}_steps": every}
