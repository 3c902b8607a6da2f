"""Configuration: YAML -> OmegaConf merge with key=value -> pydantic; every error is reported at once with key, value
and what is allowed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_jsonable_python

from safer_steer.errors import UserError
from safer_steer.secrets import key_inside, redacted


class Section(BaseModel):
    """A part of a config file: unknown keys are errors, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


# Marks a field, as in `Annotated[int, Operational]`: it may differ when a run is resumed, because it changes where,
# how fast or under which limits something is computed, and not what.
Operational = "operational"
Config = TypeVar("Config", bound=Section)


def relevant(value: Any) -> Any:
    """A config as JSON data without its `Operational` fields: the part that results depend on."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields.items()
        return {name: relevant(getattr(value, name)) for name, field in fields if Operational not in field.metadata}
    if isinstance(value, Mapping):
        return {str(name): relevant(item) for name, item in value.items()}
    return [relevant(item) for item in value] if isinstance(value, list | tuple) else to_jsonable_python(value)


def load_config(model: type[Config], path: str | Path, overrides: list[str] | None = None) -> Config:
    """Loads one YAML file, applies `key=value` overrides and validates the result.

    Raises:
        UserError: the file is missing or not YAML, an override is malformed, or values do not fit `model`.
    """
    return validate(model, load_raw(path, overrides), str(path))


def load_raw(path: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """The merged and interpolated config as plain data, before validation."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"config file not found: {path}; see configs/ for the ones that exist")
    for item in overrides or []:
        if "=" not in item:
            raise UserError(f"override {item!r} is not of the form key=value, for example training.epochs=2")
    try:
        merged = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(list(overrides or [])))
        data = OmegaConf.to_container(merged, resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: a config is a mapping of keys to values, got a {type(data).__name__}; see configs/")
    refuse_keys(data, str(path))
    return {str(key): value for key, value in data.items()}


def refuse_keys(data: Any, where: str) -> None:
    """A config never holds the value of a key, not by interpolation either: it is printed, hashed and recorded.

    Raises:
        UserError: the value of one of the environment's keys is in it.
    """
    if name := key_inside(data):
        raise UserError(f"{where}: the value of {name} is in the config; take it out, keys are read from there")


def validate(model: type[Config], data: dict[str, Any], where: str) -> Config:
    """Checks plain data against a config model; all problems go into one error."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_problem(item, model) for item in error.errors()]
        raise UserError(f"{where}: {len(problems)} problem(s): " + "; ".join(problems)) from error


def _problem(item: Mapping[str, Any], model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "(whole file)"
    if item["type"] == "extra_forbidden":
        allowed = ", ".join(_allowed(model, item["loc"][:-1])) or "see the YAML in configs/"
        return f"{key}: unknown key; allowed here: {allowed}"
    if item["type"] == "missing":
        return f"{key}: missing, a value is required"
    if item["type"] == "credential":
        return f"{key}: {item['msg']}"
    if isinstance(item["input"], Mapping):  # a rule about several keys together; the whole section says nothing
        return f"{key}: {item['msg']}"
    return f"{key}: {item['msg']}, got {redacted(item['input'])!r}"


def _allowed(model: Any, location: tuple) -> list[str]:
    for part in location:
        field = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        model = field.annotation if field else None
    return sorted(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def resolved_yaml(config: BaseModel) -> str:
    """The config as YAML, with every default and interpolation filled in."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
