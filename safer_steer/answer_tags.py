"""Answers made of tagged parts, such as `<thinking>...</thinking><answer>...</answer>`: the tags are a config value."""

import re
from collections.abc import Sequence


def check_tags(tags: list[str]) -> list[str]:
    """Checks the names of a tag list; an empty list means plain answers.

    Raises:
        ValueError: a name is not a word, or stands twice.
    """
    wrong = [tag for tag in tags if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", tag)]
    if wrong:
        raise ValueError(f"tag names are letters, digits, _ and -, without <>; got {', '.join(map(repr, wrong))}")
    if len(set(tags)) < len(tags):
        raise ValueError(f"each tag once, got {tags}")
    return tags


def split_parts(text: str, tags: Sequence[str]) -> list[str] | None:
    """The parts' text when the answer is exactly the tags' parts: each once, in order, none empty, nothing outside.

    Args:
        text: an answer.
        tags: tag names in order; empty for plain answers, whose one part is the text itself.

    Returns:
        One stripped text a tag, or None when the answer is not of this form.
    """
    if not tags:
        return [text.strip()] if text.strip() else None
    if any(text.count(f"<{tag}>") != 1 or text.count(f"</{tag}>") != 1 for tag in tags):
        return None
    pattern = r"\s*".join(rf"<{re.escape(tag)}>\s*(\S.*?)\s*</{re.escape(tag)}>" for tag in tags)
    found = re.fullmatch(pattern, text.strip(), re.DOTALL)
    return list(found.groups()) if found else None


def join_parts(parts: Sequence[str], tags: Sequence[str]) -> str:
    """The parts in their tags; without tags the last part alone, which is the answer proper."""
    if not tags:
        return parts[-1]
    return "".join(f"<{tag}>{part}</{tag}>" for tag, part in zip(tags, parts, strict=True))
