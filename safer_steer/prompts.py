"""Prompt templates: `.jinja` files beside their user; untrusted text enters only as a JSON block between delimiters."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template, Undefined

from safer_steer.dialogue import stable_hash

DATA_OPEN, DATA_CLOSE = "<<<DATA", "DATA>>>"


def data_block(data: Any) -> str:
    """JSON between delimiters; "<" and ">" are escaped inside, so no text can close the block or imitate a special
    token.
    """
    text = json.dumps(data, ensure_ascii=False, sort_keys=True, default=_refuse)
    return f"{DATA_OPEN}\n{text.replace('<', chr(92) + 'u003c').replace('>', chr(92) + 'u003e')}\n{DATA_CLOSE}"


def _refuse(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # a strict one raises its own error, which names the variable
    raise TypeError(f"a prompt's data must be JSON, got {type(value).__name__}")


def parse_data_block(text: str) -> Any:
    """The data of the one block in a prompt.

    Raises:
        ValueError: there is no block.
    """
    start = text.index(DATA_OPEN) + len(DATA_OPEN)
    return json.loads(text[start : text.index(DATA_CLOSE, start)])


class Prompt:
    """A template file; `render` fails on a variable that is not given, `hash` names the exact wording in `run.json`."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @cached_property
    def source(self) -> str:
        """The template text."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def hash(self) -> str:
        """16 hex digits that change with any change of the wording."""
        return stable_hash(self.source)

    @cached_property
    def _template(self) -> Template:
        environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
        environment.globals["data_block"] = data_block
        return environment.from_string(self.source)

    def render(self, **variables: Any) -> str:
        """The prompt text; every variable the template names must be given."""
        return self._template.render(**variables).strip()
