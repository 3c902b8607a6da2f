"""A Stage III config: YAML that extends verl's own `ppo_trainer` through Hydra's search path -> composed, checked,
validated.

Unknown keys, in the YAML and on the command line, are errors and are reported all at once. Imports neither verl nor
torch.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from safer_steer.config import Section, load_raw, refuse_keys, validate
from safer_steer.errors import UserError
from safer_steer.picture_size import image_settings, limit_problem
from safer_steer.runs import is_finished
from safer_steer.servers import check_services
from safer_steer_verl.interactions.safety_tutor import load_prompt
from safer_steer_verl.platform import attention
from safer_steer_verl.settings import SaferSteerSettings
from safer_steer_verl.utils.own_reward import Reward
from safer_steer_verl.utils.tcsr import TcsrConfig
from training.ablations import expand, named, without_tcsr
from training.grpo import layout

# Parts of verl's config that its YAML leaves open: any key may stand below these.
OPEN_KEYS = (
    "actor_rollout_ref.model.override_config",
    "actor_rollout_ref.rollout.engine_kwargs",
    "actor_rollout_ref.rollout.enable_sleep_mode",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision",
    "actor_rollout_ref.ref.fsdp_config.mixed_precision",
    "ray_kwargs.ray_init",
    "safer_steer",  # its schema knows its keys
)
# Keys of verl, anywhere in its config, that do not change what a run computes: they may differ when it is resumed.
OPERATIONAL = frozenset(
    {
        "ray_kwargs",
        "transfer_queue",
        # Where and how often a run saves, and what it logs to.
        "save_freq",
        "max_actor_ckpt_to_keep",
        "default_local_dir",  # follows from `output`
        "logger",
        "project_name",
        "experiment_name",
        # How much memory the engines take, so that a run that ran out of it continues with less.
        "gpu_memory_utilization",
        "max_num_seqs",
        "max_num_batched_tokens",
        "ppo_micro_batch_size_per_gpu",
        "log_prob_micro_batch_size_per_gpu",
        "param_offload",
        "optimizer_offload",
    }
)
REQUIRED = ("root", "safer_steer.tutor", "safer_steer.turns.max_tokens", "actor_rollout_ref.model.path")
GROUPS = ("layout",)  # words on the command line that choose a file of configs/grpo
ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
RULE = "safer_steer.tcsr.rule"
FORMAT = "safer_steer.answer_format"
PACKAGE = Path(importlib.util.find_spec("safer_steer_verl").origin).parent


class GrpoConfig(Section):
    """The validated config: our section with its schema, verl's part as verl defines it."""

    root: str
    output: str  # the run folder
    safer_steer: SaferSteerSettings
    verl: dict[str, Any]


@dataclass(frozen=True)
class Loaded:
    """A config in both forms: validated, and as the OmegaConf tree (interpolations kept) that verl reads."""

    config: GrpoConfig
    tree: DictConfig


def load_config(path: str | Path, overrides: list[str] | None = None) -> Loaded:
    """Composes and validates a Stage III config.

    Args:
        path: a YAML file whose defaults list starts from `safer_steer` or `safer_steer_cpu`.
        overrides: Hydra overrides, `key=value` or `+key=value`; `ablation=NAME` stands for those of an ablation.

    Raises:
        UserError: the file is missing, a key is unknown or missing, or a value does not fit; all problems in one
        message.
    """
    path, given = Path(path), list(overrides or [])
    if not path.is_file():
        raise UserError(f"config file not found: {path.absolute()}; see configs/grpo/ for the ones that exist")
    words, added = _override_words(path, expand("grpo", given))
    tree = _compose(path.parent.resolve(), path.stem, words)
    _lay_over_file(tree, path, given)
    if named(given) == "no_tcsr":
        rule = OmegaConf.select(tree, RULE, default=TcsrConfig().rule)
        OmegaConf.update(tree, RULE, without_tcsr(rule), force_add=True)
    finished = not OmegaConf.is_missing(tree, "root") and is_finished(Path(str(tree.output)) / "run.json")
    if not finished:  # a finished run is compared with its record key by key, and where it would run is nothing to it
        _raise(path, _unknown_keys(tree, added))
    missing = [f"{k}: missing, a value is required" for k in REQUIRED if OmegaConf.is_missing(*_parent(tree, k))]
    _raise(path, missing + ([no_address] if (no_address := layout.take_address(tree)) else []))
    tree.actor_rollout_ref.rollout.agent.agent_loop_config_path = str(PACKAGE / "agent_loops.yaml")
    config = _with_environment(_validated(tree, path))
    ours = config.safer_steer
    problems = _size_problems(tree, ours.turns.min_tokens) + _fit_problems(tree) + attention.problems(tree)
    problem = ours.answer_format.problem(config.verl["actor_rollout_ref"]["model"]["path"] or "")
    problems += [f"safer_steer.{problem}; set it to that value"] if problem else []
    problems += _said(lambda: check_services(ours.services, {"tutor": ours.tutor}), "safer_steer.tutor.")
    if not finished:
        problems += layout.problems(ours, config.verl)
        problems += _said(Reward(ours.reward).check) + _said(
            lambda: load_prompt(ours.tutor.prompt, ours.policy), "safer_steer."
        )
    _raise(path, problems)
    return Loaded(config, tree)


def bare_tree(path: str | Path) -> DictConfig:
    """The composed config of a file, unchecked: what it lacks may come with overrides."""
    return _compose(Path(path).parent.resolve(), Path(path).stem, [])


def _lay_over_file(tree: DictConfig, path: Path, overrides: list[str]) -> None:
    """Puts the answer format's file below the keys of it that overrides set, which for Hydra take its place."""
    if not any(item.lstrip("+").startswith(f"{FORMAT}.") for item in overrides):
        return
    if isinstance(named := OmegaConf.select(bare_tree(path), FORMAT), str):
        whole = load_raw(named) | OmegaConf.to_container(OmegaConf.select(tree, FORMAT))
        OmegaConf.update(tree, FORMAT, whole, merge=False, force_add=True)


def known(key: str, tree: DictConfig) -> bool:
    """Whether a dotted key is in a composed config, or chooses a part of it."""
    node: Any = tree
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return key in GROUPS
        node = node._get_node(part) if OmegaConf.is_missing(node, part) else node[part]
    return True


def without_operational(verl: Any) -> Any:
    """Verl's part of a config without the keys that may differ when a run is resumed."""
    if isinstance(verl, dict):
        return {key: without_operational(value) for key, value in verl.items() if key not in OPERATIONAL}
    return [without_operational(item) for item in verl] if isinstance(verl, list) else verl


def _compose(folder: Path, name: str, overrides: list[str]) -> DictConfig:
    verl = importlib.util.find_spec("verl")
    if verl is None or verl.origin is None:
        raise UserError("verl is not installed (or a folder named verl hides it); run scripts/setup.sh")
    search = [f"file://{PACKAGE / 'hydra_configs'}", f"file://{Path(verl.origin).parent / 'trainer' / 'config'}"]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(folder), version_base=None, job_name="grpo"):
            return compose(name, [f"hydra.searchpath=[{','.join(search)}]", *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{folder / name}.yaml: {error}") from error


def _override_words(path: Path, overrides: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """The overrides as Hydra puts them in, known keys or not, since it would stop at the first unknown one; and the
    keys that `+` adds on purpose.
    """
    words, added, problems = [], [], []
    for item in overrides:
        try:
            override = OverridesParser.create().parse_override(item)
        except HydraException:
            problems.append(f"override {item!r} is not of the form key=value, for example trainer.save_freq=5")
            continue
        key = override.key_or_group
        plain = item[0] not in "+~" and key not in GROUPS and "@" not in item.partition("=")[0]
        words.append(f"++{item}" if plain else item)
        added += [key] if override.is_add() else []
    _raise(path, problems)
    return words, tuple(added)


def _unknown_keys(tree: DictConfig, added: tuple[str, ...]) -> list[str]:
    """Keys that neither verl's YAML nor ours knows: typing mistakes, which Hydra itself would let through."""
    meant = (*OPEN_KEYS, *added)
    found = _extra(OmegaConf.to_container(tree, resolve=False), _reference(), "")
    found = [key for key in found if not any(f"{key}.".startswith(f"{other}.") for other in meant)]
    return [f"{key}: unknown key; +{key}=... adds one that verl's YAML does not list" for key in found]


@cache
def _reference() -> dict[str, Any]:
    """Every key that verl's YAML and ours have."""
    return OmegaConf.to_container(_compose(PACKAGE / "hydra_configs", "safer_steer_cpu", []), resolve=False)


def _extra(have: Any, known: Any, where: str) -> list[str]:
    """Dotted keys of `have` that `known` lacks; what stands below an unknown key is not named too."""
    if not isinstance(have, dict) or known in (None, {}):  # a value of verl's YAML that may be a mapping too
        return []
    if not isinstance(known, dict):
        return [where]
    found = []
    for key, value in have.items():
        name = f"{where}.{key}" if where else str(key)
        found += _extra(value, known[key], name) if key in known else [name]
    return found


def _parent(tree: DictConfig, key: str) -> tuple[Any, str]:
    head, _, last = key.rpartition(".")
    return (OmegaConf.select(tree, head) if head else tree), last


def _validated(tree: DictConfig, path: Path) -> GrpoConfig:
    try:
        plain = OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {error}") from error
    refuse_keys(plain, str(path))
    ours = {name: plain.pop(name) for name in ("root", "output", "safer_steer")}
    plain["actor_rollout_ref"]["rollout"]["agent"].pop("agent_loop_config_path")  # where this checkout lies
    return validate(GrpoConfig, ours | {"verl": plain}, str(path))


def _with_environment(config: GrpoConfig) -> GrpoConfig:
    """With TUTOR_MODEL and TUTOR_API_BASE_URL put in, so that plan, record and the workers of every node have them."""
    tutor = config.safer_steer.tutor.from_environment("tutor")
    return config.model_copy(update={"safer_steer": config.safer_steer.model_copy(update={"tutor": tutor})})


def _raise(path: Path, problems: list[str]) -> None:
    if problems:
        raise UserError(f"{path}: {len(problems)} problem(s): " + "; ".join(problems))


def _said(check: Callable[[], Any], prefix: str = "") -> list[str]:
    """What a check objects to."""
    try:
        check()
    except (UserError, ValueError) as error:
        return [f"{prefix}{error}"]
    return []


def _size_problems(tree: DictConfig, min_tokens: int) -> list[str]:
    """Sizes that do not fit together; verl itself would say so only after its start-up, or not at all."""
    data, refs = tree.data, tree.actor_rollout_ref
    mini, batch, rollout = refs.actor.ppo_mini_batch_size, data.train_batch_size, refs.rollout
    total = data.max_prompt_length + data.max_response_length
    problems = []
    if batch % mini:
        problems.append(f"{ACTOR}.ppo_mini_batch_size: {mini} does not divide data.train_batch_size {batch}")
    if min_tokens >= data.max_response_length:
        problems.append(f"data.max_response_length: {data.max_response_length} leaves no room for one turn")
    if rollout.max_model_len and rollout.max_model_len < total:
        problems.append(f"{ROLLOUT}.max_model_len: {rollout.max_model_len} is below prompt + response = {total}")
    if rollout.n < 2:
        problems.append(f"{ROLLOUT}.n: {rollout.n} rollouts a prompt; a group needs at least 2")
    if rollout.temperature <= 0:
        problems.append(f"{ROLLOUT}.temperature: must be above 0, got {rollout.temperature}")
    return problems


def _fixed_problems(tree: DictConfig) -> list[str]:
    """Values that the run around verl takes for granted; with another one it would look elsewhere, or count wrong."""
    fixed = {
        "trainer.default_local_dir": (f"{tree.output}/checkpoints", "give another output: a run has one folder"),
        "trainer.resume_mode": ("auto", "a run continues from its last checkpoint; to start again give another output"),
        "data.train_max_samples": (-1, "give a smaller safer_steer.data.source, or trainer.total_training_steps"),
    }
    found = {key: OmegaConf.select(tree, key) for key in fixed}
    return [
        f"{key}: {found[key]}; only {value} is allowed; {instead}"
        for key, (value, instead) in fixed.items()
        if found[key] != value
    ]


def _fit_problems(tree: DictConfig) -> list[str]:
    """Settings that need one another."""
    ours, problems = tree.safer_steer, _fixed_problems(tree)
    workers, calls = tree.actor_rollout_ref.rollout.agent.num_workers, ours.tutor.get("concurrency", None)
    if calls is not None and calls < workers:
        problems.append(
            f"safer_steer.tutor.concurrency: {calls} calls cannot be shared by "
            f"{ROLLOUT}.agent.num_workers={workers}; each worker needs at least one"
        )
    model, keep = tree.actor_rollout_ref.model.path, tree.trainer.max_actor_ckpt_to_keep
    if not model:
        problems.append("actor_rollout_ref.model.path: empty; ablation=no_bootstrapping needs safer_steer.base_model")
    elif Path(model).is_dir() and (settings := image_settings(model)):  # one on the hub: when the data are made
        problem = limit_problem(settings, ours.data.max_pixels)
        problems += [f"safer_steer.data.{problem} ({model}); set it to that value"] if problem else []
    if keep is not None and keep < 2:
        problems.append(
            f"trainer.max_actor_ckpt_to_keep: {keep}; at least 2, so that a run killed while it saves can go back one"
        )
    if (tree.trainer.test_freq > 0 or tree.trainer.val_before_train) and not ours.data.get("validation"):
        problems.append("trainer.test_freq, trainer.val_before_train: need files in safer_steer.data.validation")
    return problems
