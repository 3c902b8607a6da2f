"""Text files that users write: policies, prompts, guidelines, strategies."""

from pathlib import Path

from safer_steer.errors import UserError


def user_text(path: str | Path) -> str:
    """The text of a file in UTF-8, without the mark that some editors begin it with.

    Raises:
        UserError: it is in another encoding.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {error}; save it as UTF-8") from error
