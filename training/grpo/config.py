"""A Stage III config: YAML that extends verl's own `ppo_trainer` through Hydra's search path -> composed, checked,
validated.

Unknown keys, in the YAML and on the command line, are errors and are reported all at once. Imports neither verl nor
torch.
"""

import importlib.util
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

from safer_steer.config import Section, refuse_keys, validate
from safer_steer.errors import UserError
from safer_steer.picture_size import image_settings, limit_problem
from safer_steer.runs import is_finished
from safer_steer.servers import check_services
from safer_steer_verl.platform import attention
from safer_steer_verl.settings import SaferSteerSettings
from training.grpo import ablations, layout

# Parts of verl's config that its YAML leaves open: any key may stand below these.
OPEN_KEYS = (
    "actor_rollout_ref.model.override_config",
    "actor_rollout_ref.rollout.engine_kwargs",
    "actor_rollout_ref.rollout.enable_sleep_mode",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision",
    "actor_rollout_ref.ref.fsdp_config.mixed_precision",
    "ray_kwargs.ray_init",
    "safer_steer",
)
REQUIRED = ("root", "safer_steer.tutor", "safer_steer.turns.max_tokens", "actor_rollout_ref.model.path")
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
    path, overrides = Path(path), ablations.expand(list(overrides or []))
    if not path.is_file():
        raise UserError(f"config file not found: {path}; see configs/grpo/ for the ones that exist")
    _raise(path, _malformed(overrides))
    # Keys of our own section need not stand in a YAML: its schema knows them, and refuses those it does not know.
    overrides = [f"++{item}" if item.startswith("safer_steer.") else item for item in overrides]
    try:
        tree = _compose(path.parent.resolve(), path.stem, overrides)
    except UserError:  # Hydra names the first wrong key only
        bare = _compose(path.parent.resolve(), path.stem, [])
        _raise(path, _unknown_keys(bare) + _unknown_overrides(overrides, bare))
        raise
    if not _is_finished(tree):  # a finished run is compared with its record key by key
        _raise(path, _unknown_keys(tree, added=_added(overrides)))
    missing = [f"{k}: missing, a value is required" for k in REQUIRED if OmegaConf.is_missing(*_parent(tree, k))]
    _raise(path, missing + ([no_address] if (no_address := layout.take_address(tree)) else []))
    tree.actor_rollout_ref.rollout.agent.agent_loop_config_path = str(PACKAGE / "agent_loops.yaml")
    config = _with_environment(_validated(tree, path))
    problems = _size_problems(tree) + _fit_problems(tree) + attention.problems(tree)
    problems += _service_problems(config.safer_steer)
    if not _is_finished(tree):  # where things run is nothing to a run that is over
        problems += layout.problems(config.safer_steer, config.verl)
    _raise(path, problems)
    return Loaded(config, tree)


def _with_environment(config: GrpoConfig) -> GrpoConfig:
    """With TUTOR_MODEL and TUTOR_API_BASE_URL put in, so that plan, record and the workers of every node have them."""
    tutor = config.safer_steer.tutor.from_environment("tutor")
    return config.model_copy(update={"safer_steer": config.safer_steer.model_copy(update={"tutor": tutor})})


def _validated(tree: DictConfig, path: Path) -> GrpoConfig:
    try:
        plain = OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {error}") from error
    refuse_keys(plain, str(path))
    ours = {name: plain.pop(name) for name in ("root", "output", "safer_steer")}
    plain["actor_rollout_ref"]["rollout"]["agent"].pop(
        "agent_loop_config_path"
    )  # where this checkout lies is no setting
    return validate(GrpoConfig, ours | {"verl": plain}, str(path))


def _raise(path: Path, problems: list[str]) -> None:
    if problems:
        raise UserError(f"{path}: {len(problems)} problem(s): " + "; ".join(problems))


def _size_problems(tree: DictConfig) -> list[str]:
    """Sizes that do not fit together; verl itself would say so only after its start-up, or not at all."""
    data, actor, rollout = tree.data, tree.actor_rollout_ref.actor, tree.actor_rollout_ref.rollout
    turns, problems = tree.safer_steer.turns, []
    mini, batch = actor.ppo_mini_batch_size, data.train_batch_size
    if batch % mini:
        problems.append(
            f"actor_rollout_ref.actor.ppo_mini_batch_size: {mini} does not divide data.train_batch_size {batch}"
        )
    if turns.min_tokens >= data.max_response_length:
        problems.append(f"data.max_response_length: {data.max_response_length} leaves no room for one turn")
    if rollout.max_model_len and rollout.max_model_len < data.max_prompt_length + data.max_response_length:
        total = data.max_prompt_length + data.max_response_length
        problems.append(
            f"actor_rollout_ref.rollout.max_model_len: {rollout.max_model_len} is below prompt + response = {total}"
        )
    if rollout.n < 2:
        problems.append(f"actor_rollout_ref.rollout.n: {rollout.n} rollouts a prompt; a group needs at least 2")
    if rollout.temperature <= 0:
        problems.append(f"actor_rollout_ref.rollout.temperature: must be above 0, got {rollout.temperature}")
    return problems


def _fit_problems(tree: DictConfig) -> list[str]:
    """Settings that need one another."""
    ours, problems = tree.safer_steer, []
    workers, calls = tree.actor_rollout_ref.rollout.agent.num_workers, ours.tutor.get("concurrency", None)
    if calls is not None and calls < workers:
        problems.append(
            f"safer_steer.tutor.concurrency: {calls} calls cannot be shared by "
            f"actor_rollout_ref.rollout.agent.num_workers={workers}; each worker needs at least one"
        )
    if not tree.actor_rollout_ref.model.path:
        problems.append("actor_rollout_ref.model.path: empty; ablation=no_bootstrapping needs safer_steer.base_model")
    problems += _picture_problems(tree.actor_rollout_ref.model.path, tree.safer_steer.data)
    keep = tree.trainer.max_actor_ckpt_to_keep
    if keep is not None and keep < 2:
        problems.append(
            f"trainer.max_actor_ckpt_to_keep: {keep}; at least 2, so that a run killed while it saves can go back one"
        )
    if (tree.trainer.test_freq > 0 or tree.trainer.val_before_train) and not ours.data.get("validation"):
        problems.append("trainer.test_freq, trainer.val_before_train: need files in safer_steer.data.validation")
    return problems


def _picture_problems(model: str, data: DictConfig) -> list[str]:
    """A checkpoint that was trained on pictures of another size; one on the hub is looked at when the data are made."""
    settings = image_settings(model) if model and Path(model).is_dir() else None
    problem = limit_problem(settings, data.max_pixels) if settings else None
    return [f"safer_steer.data.{problem} ({model}); set it to that value"] if problem else []


def _service_problems(ours: SaferSteerSettings) -> list[str]:
    try:
        check_services(ours.services, {"tutor": ours.tutor})
    except ValueError as error:
        return [f"safer_steer.tutor.{error}"]
    return []


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


def _malformed(overrides: list[str]) -> list[str]:
    problems = []
    for item in overrides:
        try:
            OverridesParser.create().parse_overrides([item])
        except HydraException:
            problems.append(f"override {item!r} is not of the form key=value, for example trainer.save_freq=5")
    return problems


def _unknown_overrides(overrides: list[str], tree: DictConfig) -> list[str]:
    """Overrides of keys that the config does not have; `+key=value` adds one on purpose."""
    problems = []
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.key_or_group
        if override.is_add() or override.is_delete() or known(key, tree):
            continue
        problems.append(f"{key}: unknown key; +{key}=... adds one that verl's YAML does not list")
    return problems


def bare_tree(path: str | Path) -> DictConfig:
    """The composed config of a file, unchecked: what it lacks may come with overrides."""
    return _compose(Path(path).parent.resolve(), Path(path).stem, [])


def known(key: str, tree: DictConfig) -> bool:
    """Whether a dotted key is in a composed config, or chooses a part of it."""
    if key == "layout":
        return True
    node: Any = tree
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return False
        node = node._get_node(part) if OmegaConf.is_missing(node, part) else node[part]
    return True


def _is_finished(tree: DictConfig) -> bool:
    if OmegaConf.is_missing(tree, "root"):
        return False
    return is_finished(Path(str(OmegaConf.select(tree, "output"))) / "run.json")


def _added(overrides: list[str]) -> list[str]:
    parsed = OverridesParser.create().parse_overrides(overrides)
    return [override.key_or_group for override in parsed if override.is_add()]


def _unknown_keys(tree: DictConfig, added: list[str] | None = None) -> list[str]:
    """Keys that neither verl's YAML nor ours knows: typing mistakes in a file, which Hydra itself would let through."""
    found = _extra(OmegaConf.to_container(tree, resolve=False), _reference(), "")
    meant = tuple(added or ())
    return [f"{key}: unknown key" for key in found if not any(key == a or a.startswith(f"{key}.") for a in meant)]


@cache
def _reference() -> dict[str, Any]:
    """Every key that verl's YAML and ours have."""
    return OmegaConf.to_container(_compose(PACKAGE / "hydra_configs", "safer_steer_cpu", []), resolve=False)


def _extra(have: Any, known: Any, where: str) -> list[str]:
    if not isinstance(have, dict) or where in OPEN_KEYS:
        return []
    if not isinstance(known, dict) or not known:  # a value of verl's YAML that may be a mapping too
        return []
    found = []
    for key, value in have.items():
        name = f"{where}.{key}" if where else str(key)
        if key in known:
            found += _extra(value, known[key], name)
        elif not any(name == open_key or name.startswith(f"{open_key}.") for open_key in OPEN_KEYS):
            found.append(name)
    return found


def _parent(tree: DictConfig, key: str) -> tuple[Any, str]:
    head, _, last = key.rpartition(".")
    return (OmegaConf.select(tree, head) if head else tree), last
