"""What a GRPO run needs of each machine, by arithmetic from its config."""

from pathlib import Path

from safer_steer.machine import GIB, Needs
from safer_steer.model_shape import parameters, tied
from training.grpo.config import GrpoConfig

OTHERS = 3e9  # bytes of Ray, verl and vLLM themselves


def needs(config: GrpoConfig) -> Needs:
    """Disk and memory follow the number of parameters; 0 where that is not known.

    A checkpoint has 16 bytes a parameter: fp32 weights, Adam's two moments and the Hugging Face folder; with LoRA 8,
    the moments being small. One more than are kept is there while it is written, and two exports (checkpoint/, best/).
    """
    trainer, actor = config.verl["trainer"], config.verl["actor_rollout_ref"]
    model = actor["model"]
    number = parameters(model["path"], config.safer_steer.base_model) or 0
    lora = bool(model.get("lora_rank"))
    keep = trainer["max_actor_ckpt_to_keep"] or 2
    local, device = trainer["n_gpus_per_node"], trainer["device"]
    fsdp = actor["actor"]["fsdp_config"]
    if device == "cpu":
        host, why = number * (12 if lora else 24) + OTHERS, "actor with its optimiser, reference and rollout engine"
    else:
        # With tied embeddings every rank, not the first alone, loads the weights into main memory.
        loading = local if tied(model["path"], config.safer_steer.base_model) else 1
        load = 4 * number * loading
        held = 4 * number * (bool(fsdp["param_offload"]) + 2 * bool(fsdp["optimizer_offload"] and not lora))
        host = max(load, held + 4 * number) + OTHERS
        why = f"fp32 weights in {loading} rank(s) while loading, or what is offloaded"
    return Needs(
        device=device,
        folder=Path(config.output),
        gpus=local if device == "cuda" and not config.verl["ray_kwargs"]["ray_init"].get("address") else 0,
        nodes=trainer["nnodes"],
        disk=number * ((keep + 1) * (8 if lora else 16) + 2 * 4),
        disk_why=f"{keep} checkpoints and one being written, {8 if lora else 16} bytes a parameter, and two exports",
        host=host,
        host_why=why,
        shm=GIB if device == "cuda" else 0.0,
    )
