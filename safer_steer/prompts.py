"""Prompt templates: `.jinja` files next to their user; untrusted text enters only as a data block.

python -m safer_steer.prompts                   every prompt, its file and who reads it
python -m safer_steer.prompts show NAME         one of them as a model gets it, on a sample with a picture
python -m safer_steer.prompts show NAME FILE    a template of yours in its place
"""

import sys
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, TemplateError, meta

from safer_steer.data_block import data_block
from safer_steer.dialogue import stable_hash
from safer_steer.errors import UserError
from safer_steer.user_text import user_text

PARTS = Path(__file__).with_name("prompt_parts")  # what several prompts say in the same words


class Prompt:
    """A template file; `render` fails on a variable that is not given, `hash` names the exact wording in `run.json`.

    Templates are written for dialogues about pictures. One without any gets the same text with a note behind it.

    Args:
        path: the template; it may include those next to it and those of `prompt_parts`.
        given: values that are the same in every rendering and belong to the wording, such as the policy.
    """

    def __init__(self, path: str | Path, **given: str):
        self.path, self.given = Path(path), given

    @cached_property
    def source(self) -> str:
        """The template text with that of its parts, in the order in which they are read."""
        return "\n".join(self._sources(user_text(self.path)))

    @cached_property
    def hash(self) -> str:
        """16 hex digits that change with any change of the wording."""
        return stable_hash(self.source, self.given, _no_picture())

    @property
    def variables(self) -> set[str]:
        """What the template and its parts read.

        Raises:
            TemplateError: it is none, or a part is missing.
        """
        return meta.find_undeclared_variables(self._environment.parse(self.source))

    def _sources(self, text: str) -> list[str]:
        found = [text]
        for name in meta.find_referenced_templates(self._environment.parse(text)):
            if name:
                found += self._sources(self._environment.loader.get_source(self._environment, name)[0])  # type: ignore[union-attr]
        return found

    @cached_property
    def _environment(self) -> Environment:
        loader = FileSystemLoader([self.path.parent, PARTS])
        options = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True, "autoescape": False}
        options["keep_trailing_newline"] = True  # a part ends with its line, so that what follows begins a new one
        environment = Environment(loader=loader, **options)  # type: ignore[arg-type]
        environment.globals["data_block"] = data_block
        return environment

    @cached_property
    def _template(self) -> Template:
        return self._environment.from_string(user_text(self.path))

    def render(self, *, pictures: bool = True, **variables: Any) -> str:
        """The prompt text; every variable the template names must be given.

        Args:
            pictures: whether any goes with it; without, the text ends with a note that says so.
            variables: of the template.
        """
        text = self._template.render(**self.given, **variables).strip()
        return text if pictures else f"{text}\n\n{_no_picture()}"


@cache
def _no_picture() -> str:
    return (PARTS / "no_picture.jinja").read_text(encoding="utf-8").strip()


def own_prompt(path: str, key: str, samples: Sequence[dict[str, Any]], data: Any, **given: str) -> Prompt:
    """A user's template, tried on samples before anything starts.

    Args:
        path: the file.
        key: of the config that names it, for messages.
        samples: values of the template's variables, one rendering for each.
        data: what every rendering must show in its data block.
        given: see `Prompt`.

    Raises:
        UserError: there is no such file, it cannot be rendered, or it leaves out the data.
    """
    if not Path(path).is_file():
        raise UserError(f"{key}: file not found: {path}; name a template, a .jinja file")
    prompt, names = Prompt(path, **given), " and ".join([*samples[0], *given])
    try:
        texts = [prompt.render(**sample) for sample in samples]
    except (TemplateError, TypeError) as error:
        raise UserError(f"{key}: {path} cannot be rendered: {error}; its variables are {names}") from error
    if not all(data_block(data) in text for text in texts):
        shown = next(name for name, value in samples[0].items() if value == data)
        raise UserError(f"{key}: {path} does not show the dialogue; it needs {{{{ data_block({shown}) }}}}")
    return prompt


if __name__ == "__main__":
    from safer_steer.prompt_catalogue import main

    sys.exit(main())
