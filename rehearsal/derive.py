"""A stage's config -> the same config for a rehearsal: two steps, the rehearsal's model, rows and folder.

Sizes that decide over memory and speed stay (sequence lengths, micro-batches, ranks), unless the rehearsal computes on
a CPU in place of GPUs: then sequences, batches and ranks shrink, and the table says so.
"""

import math
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from rehearsal import stand_in
from rehearsal.settings import Settings
from rehearsal.subjects import Subject
from safer_steer.store import write_atomic
from training.grpo.config import PACKAGE

STEPS = 2
CPU_TOKENS = 1024
SHORT = {"float32": "fp32", "bfloat16": "bf16"}
SERVICE = {
    "stand_in": {
        "command": ["python", "-m", "rehearsal.stand_in", "--port", "{port}"],
        "serves": stand_in.MODEL,
    }
}
STAND_IN = {"model": stand_in.MODEL, "base_url": "service:stand_in", "max_tokens": 256, "concurrency": 16}


def length(subject: Subject, settings: Settings) -> int:
    """Tokens of the rehearsal's longest sequence."""
    most = settings.tokens or (CPU_TOKENS if subject.replaced and subject.device == "cpu" else subject.length)
    return min(subject.length, most)


def sft_batch(subject: Subject) -> tuple[int, int, int, int]:
    """(dialogues an update, a device, accumulated, processes) of the rehearsal."""
    training = subject.config.training
    if subject.replaced:
        return 2, 1, 2, 1
    return training.batch_size, training.per_device_batch_size, training.gradient_accumulation, training.processes


def sft(subject: Subject, settings: Settings, model: Path, data: Path, folder: Path) -> Path:
    """Writes the config of an SFT run of two steps, each saved; returns its file."""
    batch, device_batch, accumulation, processes = sft_batch(subject)
    plain = subject.raw | {
        "root": str(folder),
        "output": str(folder / "sft"),
        "model": str(model),
        "data": str(data),
        "device": subject.device,
        "max_length": length(subject, settings),
        "eval_share": 0.0,
    }
    training = subject.raw["training"] | {
        "epochs": 1,
        "export_epoch": None,
        "batch_size": batch,
        "per_device_batch_size": device_batch,
        "gradient_accumulation": accumulation,
        "processes": processes,
        "save_every": 1,
        "keep_checkpoints": 2,
        "warmup_ratio": 0.0,
        "trackers": [],
    }
    if subject.replaced and subject.device == "cpu":
        training |= {"deepspeed": None, "data_workers": 0, "precision": SHORT[settings.dtype]}
    return _write(folder / "sft.yaml", plain | {"training": training})


def grpo_batch(subject: Subject) -> tuple[int, int]:
    """(prompts per step, rollouts per prompt): the fewest that a rank's micro-batches divide; a CPU's as it is."""
    verl = subject.config.verl
    refs = verl["actor_rollout_ref"]
    if subject.replaced:
        return 2, 2
    if subject.device == "cpu":
        return verl["data"]["train_batch_size"], refs["rollout"]["n"]
    ranks = verl["trainer"]["n_gpus_per_node"] * verl["trainer"]["nnodes"]
    micro = [
        refs["actor"]["ppo_micro_batch_size_per_gpu"],
        refs["rollout"]["log_prob_micro_batch_size_per_gpu"],
        refs["ref"]["log_prob_micro_batch_size_per_gpu"],
    ]
    trajectories = ranks * math.lcm(*(size for size in micro if size))
    return trajectories // 2 if trajectories % 2 == 0 else trajectories, 2


def grpo(
    subject: Subject, settings: Settings, model: Path, data: Path, folder: Path, widest: int, use_stand_in: bool
) -> Path:
    """Writes the config of a GRPO run of two steps, each saved.

    Args:
        subject: the stage.
        settings: the rehearsal's.
        model: checkpoint folder.
        data: prompts.
        folder: where its output goes.
        widest: elements of the model's largest tensor, which one bucket of the weight sync must hold.
        use_stand_in: whether the stand-in takes the tutor's place.
    """
    tree: Any = OmegaConf.create(OmegaConf.to_container(subject.raw, resolve=False))
    OmegaConf.set_struct(tree, False)
    replaced = subject.replaced and subject.device == "cpu"
    if replaced:
        cpu: Any = OmegaConf.load(PACKAGE / "hydra_configs" / "safer_steer_cpu.yaml")
        del cpu["defaults"]
        tree.merge_with(cpu)
    prompts, rollouts = grpo_batch(subject)
    refs, turns = tree.actor_rollout_ref, tree.safer_steer.turns
    tree.root, tree.output = str(folder), str(folder / "grpo")
    tree.safer_steer.data.source, tree.safer_steer.data.validation = str(data), []
    refs.model.path = str(model)
    refs.rollout.n, tree.data.train_batch_size = rollouts, prompts
    if subject.replaced or subject.device != "cpu":  # one update a step
        refs.actor.ppo_mini_batch_size = prompts
    tree.trainer.update({"total_training_steps": STEPS, "save_freq": 1, "test_freq": -1, "val_before_train": False})
    tree.trainer.logger = []
    tree.safer_steer.max_unscored_rate = tree.safer_steer.max_token_fault_rate = 0.9  # the table says how many
    if replaced:
        total = length(subject, settings)
        tree.data.max_prompt_length, tree.data.max_response_length = total // 2, total - total // 2
        refs.rollout.max_model_len = total
        turns.max_tokens = min(turns.max_tokens, total // 8)
        turns.min_tokens = min(subject.config.safer_steer.turns.min_tokens, turns.max_tokens)
        tree.safer_steer.attention = "auto"
        refs.rollout.max_num_batched_tokens = max(2048, total)
        refs.rollout.max_num_seqs = prompts * rollouts
        refs.actor.ppo_micro_batch_size_per_gpu = 1
        refs.rollout.log_prob_micro_batch_size_per_gpu = refs.ref.log_prob_micro_batch_size_per_gpu = 1
        refs.actor.fsdp_config.update({"param_offload": False, "optimizer_offload": False})
        refs.ref.fsdp_config.param_offload = False
        refs.rollout.dtype = settings.dtype
        for part in (refs.actor, refs.ref):
            part.fsdp_config.model_dtype = part.fsdp_config.mixed_precision.param_dtype = settings.dtype
    if subject.device == "cpu":
        bucket = refs.rollout.checkpoint_engine
        bucket.update_weights_bucket_megabytes = max(bucket.update_weights_bucket_megabytes, widest * 4 // 2**20 + 1)
    if use_stand_in:
        tree.safer_steer.tutor, tree.safer_steer.services = STAND_IN, SERVICE
    plain = OmegaConf.to_container(tree, resolve=False)
    return _write(folder / "grpo.yaml", {"defaults": ["safer_steer", "_self_"], **plain})


def evaluation(subject: Subject, settings: Settings, model: Path, data: Path, folder: Path, use_stand_in: bool) -> Path:
    """Writes the config of an evaluation of one dialogue by one checkpoint."""
    plain = subject.raw | {
        "root": str(folder),
        "output": str(folder / "evaluation"),
        "benchmarks": [str(data)],
        "models": {"rehearsed": {"checkpoint": str(model)}},
        "mode": "static",
        "concurrency": 1,
        "judges": {},
        "max_unscored_rate": 1.0,
        "report": {"folder": str(folder / "evaluation" / "report")},
    }
    if subject.replaced:
        total = length(subject, settings)
        plain["serving"] = subject.raw["serving"] | {"max_model_len": total, "tensor_parallel": 1, "data_parallel": 1}
        plain["serving"]["max_num_seqs"] = 1
        plain["serving"]["arguments"] = [*subject.raw["serving"].get("arguments", []), "--dtype", settings.dtype]
        plain["sampling"] = subject.raw["sampling"] | {"max_tokens": min(32, subject.raw["sampling"]["max_tokens"])}
    if use_stand_in:
        plain |= {"judge": STAND_IN, "services": SERVICE}
    return _write(folder / "evaluation.yaml", plain)


def _write(file: Path, plain: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
    return file
