"""All prompts of Stages I and II, by the name that records, rejects and JSON schemas use."""

from collections.abc import Mapping
from pathlib import Path

from safer_steer.errors import UserError
from safer_steer.prompts import Prompt

FOLDER = Path(__file__).parent
GUIDELINES = FOLDER / "guidelines.md"  # of the blue agent, unless the config names others
STAGE_ONE = ("probe", "expand", "forensics", "intent", "plan", "leak", "refusal")
STAGE_TWO = ("rewrite", "turn_scores")
HISTORY = ("request_risk",)
NAMES = (*STAGE_ONE, *STAGE_TWO, *HISTORY)


def load_prompts(own: Mapping[str, str]) -> dict[str, Prompt]:
    """Name -> template, for all names.

    Args:
        own: name -> file of the user's, in place of the one here.

    Raises:
        UserError: a file is not there.
    """
    paths = {name: Path(own.get(name, FOLDER / f"{name}.jinja")) for name in NAMES}
    for name, path in paths.items():
        if not path.is_file():
            raise UserError(f"prompts.{name}: file not found: {path}; name a .jinja template")
    return {name: Prompt(path) for name, path in paths.items()}
