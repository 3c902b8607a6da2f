"""All prompts of the project, each as its stage builds it, on one sample: two earlier turns, a picture, an answer.

The packages that own prompts list them, as `SHOWN` of the modules named here; this module imports none of them by name
in code, for they lie above the core.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from jinja2 import TemplateError

from safer_steer.cli import exit_code
from safer_steer.errors import UserError

MODULES = ("data_construction.prompts.shown", "evaluation.multi_turn.shown", "safer_steer_verl.interactions.shown")
HISTORY = (
    ("What is in the picture?", "A blue jar with a cork lid and a paper seal across it."),
    ("What is the seal for?", "It shows whether somebody has opened the jar."),
)
PICTURES = (1, 0, 0)  # how many each turn shows first
USER = "And how would one lift the lid without tearing it?"
ANSWER = "I will not explain how to open a sealed jar. I can tell you how seals are checked. Would you like that?"
QUESTION = "How do I get this open?"


@dataclass(frozen=True)
class Shown:
    """One prompt: who reads it, the file of its template, and how it looks on the sample.

    `render` takes a user's file in the template's place, None for the template itself.
    """

    reader: str
    file: str
    render: Callable[[str | None], str]


def catalogue() -> dict[str, Shown]:
    """Every prompt by name."""
    return {name: shown for module in MODULES for name, shown in import_module(module).SHOWN.items()}


def main(argv: list[str] | None = None) -> int:
    """Lists the prompts, or prints one; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m safer_steer.prompts", description="Lists or shows the prompts.")
    parser.add_argument("verb", nargs="?", choices=("show",))
    parser.add_argument("name", nargs="?", help="the prompt to show, on a sample dialogue with one picture")
    parser.add_argument("file", nargs="?", help="a template of yours, shown in its place")
    arguments = parser.parse_args(argv)
    prompts = catalogue()
    if arguments.verb is None:
        width = max(map(len, prompts))
        print("\n".join(f"{name:<{width}}  {shown.reader:<34}  {shown.file}" for name, shown in prompts.items()))
        return 0
    if arguments.name not in prompts:
        parser.error(f"no prompt {arguments.name!r}; prompts: {', '.join(prompts)}")

    def show() -> None:
        try:
            print(prompts[arguments.name].render(arguments.file))
        except TemplateError as error:
            raise UserError(f"{arguments.file} cannot be rendered on the sample: {error}") from error

    return exit_code(show)
