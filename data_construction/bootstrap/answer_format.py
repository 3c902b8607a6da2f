"""The assistant's answer format: plain, or parts in tags such as `<thinking>...</thinking><answer>...</answer>`."""

from collections.abc import Sequence


def format_instruction(tags: Sequence[str]) -> str:
    """What to add to the blue agent's guidelines; "" for plain answers."""
    if not tags:
        return ""
    pattern = "".join(f"<{tag}>...</{tag}>" for tag in tags)
    return (
        f"\n\nWrite every answer as {pattern}, each tag exactly once, in this order, and nothing outside of the tags."
    )
