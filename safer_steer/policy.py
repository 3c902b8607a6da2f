"""The policy: the text that says what counts as harm in a run, for judge, tutor, evaluator and the blue guidelines."""

from pathlib import Path

from safer_steer.errors import UserError
from safer_steer.user_text import user_text

GENERAL = Path(__file__).with_name("policies") / "general.md"


def read_policy(path: str | None, key: str = "policy") -> str:
    """The text of a policy file.

    Args:
        path: the file; None for the general one of this package.
        key: of the config that names it, for messages.

    Raises:
        UserError: there is no such file, or nothing is in it.
    """
    place = GENERAL if path is None else Path(path)
    if not place.is_file():
        raise UserError(f"{key}: file not found: {path}; name a text file that says what counts as harm")
    if not (text := user_text(place).strip()):
        raise UserError(f"{key}: {path} is empty; write what counts as harm, or leave the key out")
    return text
