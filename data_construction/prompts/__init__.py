"""All prompts of Stages I and II, by the name that records, rejects and JSON schemas use."""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import TemplateError

from safer_steer.errors import UserError
from safer_steer.policy import read_policy
from safer_steer.prompts import Prompt
from safer_steer.user_text import user_text

FOLDER = Path(__file__).parent
GUIDELINES = FOLDER / "guidelines.md"  # of the blue agent, unless the config names others
STAGE_ONE = ("probe", "expand", "forensics", "intent", "plan", "leak", "refusal")
STAGE_TWO = ("rewrite", "turn_scores", "refusal")
HISTORY = ("request_risk",)
WITH_POLICY = ("leak", "turn_scores", "request_risk")  # those that judge
NAMES = tuple(dict.fromkeys((*STAGE_ONE, *STAGE_TWO, *HISTORY)))


def load_prompts(own: Mapping[str, str], policy: str | None = None) -> dict[str, Prompt]:
    """Name -> template, for all names.

    Args:
        own: name -> file of the user's, in place of the one here.
        policy: file that says what counts as harm; None: the general one.

    Raises:
        UserError: a file is not there or does not show the data, or the policy is empty.
    """
    paths = {name: Path(own.get(name, FOLDER / f"{name}.jinja")) for name in NAMES}
    for name, path in paths.items():
        if not path.is_file():
            raise UserError(f"prompts.{name}: file not found: {path}; name a .jinja template")
    harm = {"policy": read_policy(policy)}
    prompts = {name: Prompt(path, **(harm if name in WITH_POLICY else {})) for name, path in paths.items()}
    for name in own:
        _check(name, prompts[name])
    return prompts


def _check(name: str, prompt: Prompt) -> None:
    try:
        found, allowed = prompt.variables, {"data", *prompt.given}
    except TemplateError as error:
        raise UserError(f"prompts.{name}: {prompt.path} cannot be rendered: {error}") from error
    if "data" not in found or found - allowed:
        names, read = " and ".join(sorted(allowed)), ", ".join(sorted(found)) or "nothing"
        raise UserError(
            f"prompts.{name}: {prompt.path} reads {read}; it has {names}, and needs {{{{ data_block(data) }}}}"
        )


def blue_guidelines(path: str, policy: str | None) -> str:
    """The blue agent's guidelines: a text file, and what counts as harmful.

    Raises:
        UserError: a file is not there.
    """
    if not Path(path).is_file():
        raise UserError(f"guidelines not found: {path}; correct bootstrap.guidelines")
    return f"{user_text(path).strip()}\n\nWhat counts as harmful\n{read_policy(policy)}"
