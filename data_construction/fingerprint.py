"""What a step's results depend on, so that other settings may change when it is resumed."""

from collections.abc import Iterable
from typing import Any

from pydantic import RootModel

from data_construction.config import DataConfig, Role, Step
from safer_steer.dialogue import RISK_KINDS
from safer_steer.llm import EndpointConfig
from safer_steer.servers import referenced
from safer_steer.weights import is_hub_id, weights_fingerprint

KEEP_RULE = ("tau_safe", "tau_help")  # may change when all is scored: only the assembly applies them


class Facts(RootModel[dict[str, Any]]):
    """The part of the config that one step's results depend on, for its fingerprint."""


def facts(config: DataConfig, step: Step) -> Facts:
    """The part of the config that a step's results depend on, with the models that the environment names.

    Raises:
        UserError: an address of the environment cannot be used, or a service's checkpoint is not there.
    """
    data = config.model_dump(mode="json")
    names = {
        "stage1": ("kinds", "sources", "turns", "expand", "quality", "red_team", "injector"),
        "stage2": ("bootstrap",),
        "history": (),
        "assemble": ("assemble",),
    }[step]
    found = {name: data[name] for name in ("seed", *names)}
    roles = {role: config.roles[role].from_environment(role) for role in _roles(config, step)}
    found["roles"] = {role: endpoint.model_dump(mode="json") for role, endpoint in roles.items()}
    found["weights"] = _weights(config, roles.values())
    if step == "stage2":
        found |= {"rl_share": config.assemble.rl_share, "mix": data["assemble"]["sft"]["mix"]}
        elsewhere = {"guidelines", *KEEP_RULE}  # guidelines are hashed by content
        found["bootstrap"] = {k: v for k, v in found["bootstrap"].items() if k not in elsewhere}
    if step == "history":
        rl = data["assemble"]["rl"]
        found |= {k: rl["history_dependent"][k] for k in ("candidates", "alone_shows_pictures")}
        found |= {"rl_share": config.assemble.rl_share, "no_rl": rl["size"] == 0}
        found["mix"] = {kind: weight for kind, weight in rl["mix"].items() if kind in RISK_KINDS}
    if step == "assemble":
        found["keep_rule"] = {name: data["bootstrap"][name] for name in KEEP_RULE}
    return Facts(found)


def _roles(config: DataConfig, step: Step) -> list[Role]:
    """The roles that a step calls."""
    called = set(config.model_copy(update={"steps": [step]}).roles_needed())
    return [role for role in config.roles if role in called]


def _weights(config: DataConfig, endpoints: Iterable[EndpointConfig]) -> dict[str, str]:
    """Service -> fingerprint of the local checkpoint that it serves, for the services that endpoints name."""
    served = {name: service.vllm for name, service in referenced(config.services, endpoints).items()}
    return {
        name: weights_fingerprint(vllm.checkpoint)
        for name, vllm in served.items()
        if vllm is not None and not is_hub_id(vllm.checkpoint)
    }
