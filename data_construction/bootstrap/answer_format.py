"""The assistant's answer format: plain, or parts in tags such as `<thinking>...</thinking><answer>...</answer>`."""

import re
from collections.abc import Sequence


def format_instruction(tags: Sequence[str]) -> str:
    """What to add to the blue agent's guidelines; "" for plain answers."""
    if not tags:
        return ""
    pattern = "".join(f"<{tag}>...</{tag}>" for tag in tags)
    return (
        f"\n\nWrite every answer as {pattern}, each tag exactly once, in this order, and nothing outside of the tags."
    )


def follows_format(text: str, tags: Sequence[str]) -> bool:
    """True when the text is the tags' parts, each exactly once, in order, none empty; always true for plain answers."""
    if not tags:
        return True
    once = all(text.count(f"<{tag}>") == 1 and text.count(f"</{tag}>") == 1 for tag in tags)
    pattern = r"\s*".join(rf"<{re.escape(tag)}>\s*\S.*?</{re.escape(tag)}>" for tag in tags)
    return once and re.fullmatch(pattern, text.strip(), re.DOTALL) is not None
