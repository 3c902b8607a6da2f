"""Strategies and techniques are data: one small YAML file each, read and checked when the registry is imported."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from safer_steer.errors import UserError
from safer_steer.user_text import user_text

Model = TypeVar("Model", bound=BaseModel)


def read_data_file(path: Path, model: type[Model]) -> Model:
    """The file's content as `model`.

    Raises:
        UserError: the file is missing, is not YAML, or does not have the model's fields.
    """
    try:
        return model.model_validate(yaml.safe_load(user_text(path)))
    except FileNotFoundError:
        raise UserError(f"{path} is not there; write it, or take {path.stem} out of the registry next to it") from None
    except (yaml.YAMLError, ValidationError) as error:
        fields = ", ".join(model.model_fields)
        raise UserError(f"{path} is not a {model.__name__.lower()} with the fields {fields}: {error}") from error
