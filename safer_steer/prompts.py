"""Prompt templates: `.jinja` files next to their user; untrusted text enters only as a JSON block with delimiters."""

import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template, TemplateError, Undefined

from safer_steer.dialogue import stable_hash
from safer_steer.errors import UserError

DATA_OPEN, DATA_CLOSE = "<<<DATA", "DATA>>>"
_BLOCK = re.compile(rf"{DATA_OPEN} (?P<fence>[0-9a-f]{{16}})\n(?P<data>.*?)\n(?P=fence) {DATA_CLOSE}", re.DOTALL)


def data_block(data: Any) -> str:
    """JSON between delimiters, its keys in the order of `data`: that is the order in which a model reads them.

    The delimiters hold a hash of what is between them, so no text in it can close the block; and the same data give the
    same block. "<|", with which special tokens begin, is escaped.
    """
    text = json.dumps(data, ensure_ascii=False, indent=1, default=_refuse).replace("<|", "\\u003c|")
    fence = stable_hash(text)
    return f"{DATA_OPEN} {fence}\n{text}\n{fence} {DATA_CLOSE}"


def _refuse(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # a strict one raises its own error, which names the variable
    raise TypeError(f"a prompt's data must be JSON, got {type(value).__name__}")


def parse_data_block(text: str) -> Any:
    """The data of the one block in a prompt.

    Raises:
        ValueError: there is no block.
    """
    if (found := _BLOCK.search(text)) is None:
        raise ValueError(f"no data block between {DATA_OPEN} and {DATA_CLOSE}")
    return json.loads(found["data"])


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


def own_prompt(path: str, key: str, samples: Sequence[dict[str, Any]], data: Any) -> Prompt:
    """A user's template, tried on samples before anything starts.

    Args:
        path: the file.
        key: of the config that names it, for messages.
        samples: values of the template's variables, one rendering for each.
        data: what every rendering must show in its data block.

    Raises:
        UserError: there is no such file, it cannot be rendered, or it leaves out the data.
    """
    if not Path(path).is_file():
        raise UserError(f"{key}: file not found: {path}; name a template, a .jinja file")
    prompt, names = Prompt(path), " and ".join(samples[0])
    try:
        texts = [prompt.render(**sample) for sample in samples]
    except (TemplateError, TypeError) as error:
        raise UserError(f"{key}: {path} cannot be rendered: {error}; its variables are {names}") from error
    if not all(data_block(data) in text for text in texts):
        shown = next(name for name, value in samples[0].items() if value == data)
        raise UserError(f"{key}: {path} does not show the dialogue; it needs {{{{ data_block({shown}) }}}}")
    return prompt
