"""Configuration: YAML -> OmegaConf merge with key=value -> pydantic; every error is reported at once with key, value
and what is allowed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import to_jsonable_python

from safer_steer.errors import UserError
from safer_steer.secrets import key_inside, redacted


class Section(BaseModel):
    """A part of a config file: unknown keys are errors, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _a_switch_is_no_number(cls, data: Any) -> Any:
        """YAML reads `yes` and `on` as true, which would count as 1."""
        for name, value in data.items() if isinstance(data, Mapping) else ():
            if isinstance(value, bool) and name in cls.model_fields:
                wanted = _types_in(cls.model_fields[name].annotation)
                if bool not in wanted and (int in wanted or float in wanted):
                    raise ValueError(f"{name} should be a number, got {str(value).lower()}")
        return data


def _types_in(annotation: Any) -> list[Any]:
    """The types that a union or an annotated type is made of."""
    return [found for part in get_args(annotation) for found in _types_in(part)] or [annotation]


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
    """The merged and interpolated config as plain data, before validation.

    A file holds only what differs from the file that its key `base` names, relative to its own folder: sections are
    merged key by key, a list takes the place of a list, and null takes a section of the base out. Where the base, or an
    override's file, names a YAML file in place of a section, keys of that section are laid over that file's.
    """
    path = Path(path)
    for item in overrides or []:
        if "=" not in item:
            raise UserError(f"override {item!r} is not of the form key=value, for example training.epochs=2")
    try:
        below, above = with_base(path), OmegaConf.from_dotlist(list(overrides or []))
        _open_files(below, above)
        merged = OmegaConf.merge(below, above)
        data = OmegaConf.to_container(merged, resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise UserError(f"{path}: {error}") from error
    assert isinstance(data, dict)  # so is the merged config, and so is its plain form
    refuse_keys(data, str(path))
    return {str(key): value for key, value in data.items()}


def with_base(path: Path, above: tuple[Path, ...] = ()) -> Any:
    """A file's config, laid over those of its base and of the base's own base."""
    if not path.is_file():
        named = f" (the base of {above[-1]})" if above else ""
        raise UserError(f"config file not found: {path.absolute()}{named}; see configs/ for the ones that exist")
    if path in above:
        raise UserError(f"{path}: base names a file that has this one as its base; take one of them out")
    try:
        tree = OmegaConf.load(path)
    except OSError as error:
        if error.errno is not None:
            raise
        tree = None  # OmegaConf's word for a number or a truth value
    if not isinstance(tree, DictConfig):
        raise UserError(
            f"{path}: a config is a mapping of keys to values, got a list, a text or a number; see configs/"
        )
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise UserError(f"{path}: base names one file, got {base}")
    below = with_base(path.parent / base, (*above, path))
    _take_out(below, tree)
    _open_files(below, tree)
    return OmegaConf.merge(below, tree)


def _open_files(below: DictConfig, above: DictConfig) -> None:
    """Puts a YAML file's content where a config names the file and a section is laid over it."""
    for key, value in OmegaConf.to_container(above, resolve=False).items():  # type: ignore[union-attr]
        if not isinstance(value, dict) or not value or key not in below:  # {} takes the file's place
            continue
        if isinstance(text := below[key], str) and text.endswith(".yaml"):
            below[key] = load_raw(text)
        if OmegaConf.is_dict(below[key]):
            _open_files(below[key], above[key])


def _take_out(below: DictConfig, tree: DictConfig) -> None:
    """Removes the sections of the base for which a file says null."""
    for key, value in list(OmegaConf.to_container(tree, resolve=False).items()):  # type: ignore[union-attr]
        if not OmegaConf.is_dict(below.get(key)):
            continue
        if value is None:
            del below[key], tree[key]
        elif isinstance(value, dict):
            _take_out(below[key], tree[key])


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


def help_text(model: type[BaseModel], prefix: str = "") -> list[str]:
    """A line for each key of a config: its name, its default, what it is; sections within it follow."""
    lines = []
    for name, field in model.model_fields.items():
        key, sections = f"{prefix}{name}", _sections(field.annotation)
        default = " (required)"
        if not field.is_required():
            default = "" if sections else f" = {_shown(field.get_default(call_default_factory=True))}"
        said = f": {' '.join(field.description.split())}" if field.description else ""
        lines.append(key + default + said)
        for section, inner in sections:
            lines += help_text(section, f"{key}.{inner}")
    return lines


def _shown(default: Any) -> str:
    return json.dumps(to_jsonable_python(default), ensure_ascii=False)


def _sections(annotation: Any) -> list[tuple[type[BaseModel], str]]:
    """The sections that a field may hold, each with what stands between the field's key and theirs."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, "")]
    inner = "NAME." if get_origin(annotation) is dict else ""
    return [(section, inner + more) for part in get_args(annotation) for section, more in _sections(part)]


def resolved_yaml(config: BaseModel) -> str:
    """The config as YAML, with every default and interpolation filled in."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
