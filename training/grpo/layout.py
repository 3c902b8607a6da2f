"""Where things run: the tutor's address, the GPUs of trainer and tutor, what divides what, and memory by arithmetic.

Everything here is found without an engine, by every dry run and at every start.
"""

import math
import os
from typing import Any

from omegaconf import DictConfig, OmegaConf

from safer_steer import gpu_memory
from safer_steer.addresses import is_loopback
from safer_steer.gpus import visible_gpus
from safer_steer.model_shape import Shape, shape_of, split_problem
from safer_steer_verl.settings import SaferSteerSettings

TUTOR_ADDRESS = "TUTOR_API_BASE_URL"
NO_ADDRESS = (
    "safer_steer.tutor.base_url: the Safety Tutor's address is missing; serve one (bash scripts/serve_tutor.sh --help) "
    f"and give safer_steer.tutor.base_url=http://HOST:8000/v1, or {TUTOR_ADDRESS} in the environment, or take "
    "layout=one_node, where it is on the trainer's own node; docs/several_nodes.md"
)


def take_address(tree: DictConfig) -> str | None:
    """Puts the tutor's address of the environment in place of a missing one; a sentence when there is none either."""
    if OmegaConf.is_missing(tree.safer_steer, "tutor") or not OmegaConf.is_missing(tree.safer_steer.tutor, "base_url"):
        return None
    addresses = [item.strip() for item in os.environ.get(TUTOR_ADDRESS, "").split(",") if item.strip()]
    if not addresses:
        return NO_ADDRESS
    tree.safer_steer.tutor.base_url = addresses
    return None


def problems(ours: SaferSteerSettings, verl: dict[str, Any]) -> list[str]:
    """Everything about the layout that would stop the run, or let it wait for ever."""
    found = _address_problems(ours, verl["trainer"]) + division_problems(verl) + _split_problems(ours, verl)
    if verl["trainer"]["device"] == "cuda":
        found += _gpu_problems(ours, verl)
    return found


def _local(ours: SaferSteerSettings) -> list[str]:
    return [url for url in ours.tutor.urls() if is_loopback(url)]


def _address_problems(ours: SaferSteerSettings, trainer: dict[str, Any]) -> list[str]:
    local = _local(ours)
    if trainer["nnodes"] == 1 or not local or ours.layout.one_machine:
        return []
    origin = f" (from {TUTOR_ADDRESS})" if os.environ.get(TUTOR_ADDRESS) else ""
    return [
        f"safer_steer.tutor.base_url: {local[0]}{origin} is each node's own loopback, and trainer.nnodes is "
        f"{trainer['nnodes']}: agent loops on the other nodes would not reach the tutor; give the address of its node, "
        "http://HOST:8000/v1 (safer_steer.layout.one_machine=true where all Ray nodes are on this machine, in a test)"
    ]


def tutor_gpus(ours: SaferSteerSettings) -> int | None:
    """GPUs that the tutor takes on the trainer's node; None where it is there and its GPUs are not said."""
    if ours.layout.tutor_gpus is not None or not _local(ours):
        return ours.layout.tutor_gpus or 0
    if not all(url.startswith("service:") for url in _local(ours)):
        return None
    served = [ours.services[url.removeprefix("service:")].vllm for url in _local(ours)]
    return sum(vllm.tensor_parallel * vllm.data_parallel for vllm in served if vllm)


def _gpu_problems(ours: SaferSteerSettings, verl: dict[str, Any]) -> list[str]:
    wanted = verl["trainer"]["n_gpus_per_node"]
    has, taken = ours.layout.node_gpus, tutor_gpus(ours)
    if taken is None:
        return [
            f"safer_steer.layout.tutor_gpus: the tutor's address {_local(ours)[0]} is on the trainer's node; say how "
            "many GPUs its server takes there (0: none, a tunnel or a proxy listens there), as layout=one_node does"
        ]
    found = []
    if has is not None and wanted + taken > has:
        also = f" and the tutor {taken}" if taken else ""
        found.append(
            f"trainer.n_gpus_per_node: the trainer takes {wanted} GPUs{also}, a node has {has} "
            "(safer_steer.layout.node_gpus); lower one, or serve the tutor on a node of its own (layout=two_nodes)"
        )
    return found


def shared_gpus_problem(ours: SaferSteerSettings, verl: dict[str, Any]) -> str | None:
    """A sentence when the trainer could take GPUs that the tutor's server has: more are visible than it needs.

    A server that the run starts itself gets its GPUs from its `env`.
    """
    wanted, seen, taken = verl["trainer"]["n_gpus_per_node"], visible_gpus(), ours.layout.tutor_gpus
    if verl["trainer"]["device"] != "cuda" or not taken or seen <= wanted:
        return None
    return (
        f"CUDA_VISIBLE_DEVICES {os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')}: {seen} GPUs are visible and the "
        f"trainer takes {wanted}, perhaps those of the tutor; show it its own only, "
        f"CUDA_VISIBLE_DEVICES={','.join(map(str, range(wanted)))}, and the others to the tutor"
    )


def division_problems(verl: dict[str, Any]) -> list[str]:
    """Numbers that must divide one another, which verl would say only when its workers are up, or at its first step."""
    trainer, refs = verl["trainer"], verl["actor_rollout_ref"]
    ranks, rollouts = trainer["n_gpus_per_node"] * trainer["nnodes"], refs["rollout"]["n"]
    if ranks < 1:
        return [f"trainer.n_gpus_per_node, trainer.nnodes: both at least 1, got {ranks} GPUs in all"]
    found = []
    for key, prompts in (
        ("data.train_batch_size", verl["data"]["train_batch_size"]),
        ("actor_rollout_ref.actor.ppo_mini_batch_size", refs["actor"]["ppo_mini_batch_size"]),
    ):
        if (prompts * rollouts) % ranks:
            step = ranks // math.gcd(ranks, rollouts)
            near = [number for number in (prompts // step * step, -(-prompts // step) * step) if number]
            found.append(
                f"{key}: {prompts} prompts x {rollouts} rollouts = {prompts * rollouts} trajectories do not divide "
                f"among {ranks} GPUs; nearest that do: {', '.join(map(str, near))}"
            )
    if not found:
        found += _micro_batch_problems(refs, ranks, verl["data"]["train_batch_size"])
    split, gpus = refs["rollout"]["tensor_model_parallel_size"], trainer["n_gpus_per_node"]
    if gpus % split:
        found.append(
            f"actor_rollout_ref.rollout.tensor_model_parallel_size: {split} does not divide "
            f"trainer.n_gpus_per_node {gpus}"
        )
    return found


def _micro_batch_problems(refs: dict[str, Any], ranks: int, prompts: int) -> list[str]:
    """Micro-batches that do not divide a rank's share of trajectories."""
    actor, rollout = refs["actor"], refs["rollout"]
    if actor["use_dynamic_bsz"]:
        return []
    step, update = (number * rollout["n"] // ranks for number in (prompts, actor["ppo_mini_batch_size"]))
    shares = {
        "actor.ppo_micro_batch_size_per_gpu": (actor["ppo_micro_batch_size_per_gpu"], update),
        "rollout.log_prob_micro_batch_size_per_gpu": (rollout["log_prob_micro_batch_size_per_gpu"], step),
        "ref.log_prob_micro_batch_size_per_gpu": (refs["ref"]["log_prob_micro_batch_size_per_gpu"], step),
    }
    return [
        f"actor_rollout_ref.{key}: {size} does not divide a rank's {share} trajectories"
        for key, (size, share) in shares.items()
        if size and share % size
    ]


def _split_problems(ours: SaferSteerSettings, verl: dict[str, Any]) -> list[str]:
    refs = verl["actor_rollout_ref"]
    problem = split_problem(refs["rollout"]["tensor_model_parallel_size"], refs["model"]["path"], ours.base_model)
    return [f"actor_rollout_ref.rollout.tensor_model_parallel_size: {problem}"] if problem else []


def lines(ours: SaferSteerSettings, verl: dict[str, Any]) -> list[str]:
    """What the plan says of the layout, with the memory that arithmetic gives; nothing on a CPU."""
    trainer, refs = verl["trainer"], verl["actor_rollout_ref"]
    if trainer["device"] != "cuda":
        return []
    place = f"{tutor_gpus(ours)} GPU(s) of this node" if _local(ours) else "elsewhere"
    said = [f"layout: {trainer['nnodes']} node(s) x {trainer['n_gpus_per_node']} GPUs, the tutor {place}"]
    if problem := shared_gpus_problem(ours, verl):
        said.append(f"on this machine: this would stop the run: {problem}")
    shape = shape_of(refs["model"]["path"], ours.base_model)
    if shape is None:
        return [*said, "memory: not known before the student's config.json is there"]
    return [*said, _memory_line(ours, verl, shape, refs)]


def _memory_line(ours: SaferSteerSettings, verl: dict[str, Any], shape: Shape, refs: dict[str, Any]) -> str:
    ranks = verl["trainer"]["n_gpus_per_node"] * verl["trainer"]["nnodes"]
    length = verl["data"]["max_prompt_length"] + verl["data"]["max_response_length"]
    rows = refs["actor"]["ppo_micro_batch_size_per_gpu"] or 1
    rank = refs["model"].get("lora_rank") or 0
    adapter = gpu_memory.adapter_parameters(shape, rank) if rank else None
    update = gpu_memory.Update(shape, ranks, rows * length, adapter)
    offloaded = refs["actor"]["fsdp_config"]["param_offload"]
    whole = ours.layout.gpu_gb or 80.0
    rollout = refs["rollout"]["gpu_memory_utilization"] * whole + (0 if offloaded else update.states_gb)
    short = " - MORE THAN THERE IS" if max(update.gb, rollout) > whole else ""
    return (
        f"memory per GPU, arithmetic: update of {rows} x {length} tokens {update.gb:.0f} GB, rollout {rollout:.0f} GB, "
        f"of {whole:.0f}{short}"
    )
