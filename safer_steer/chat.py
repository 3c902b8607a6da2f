"""OpenAI chat messages out of turns and pictures."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from safer_steer.images import image_data_url

Picture = str | Path | Image.Image


def user_message(text: str, images: Sequence[Picture] = ()) -> dict:
    """A user message: the pictures first, then the text, which stays text whatever it contains."""
    if not images:
        return {"role": "user", "content": text}
    parts = [{"type": "image_url", "image_url": {"url": image_data_url(image)}} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def dialogue_messages(
    turns: Sequence[tuple[str, str | None]], images_per_turn: Sequence[Sequence[Picture]], system: str | None = None
) -> list[dict]:
    """The whole history as chat messages.

    Args:
        turns: (user text, assistant text or None) in order; None only for a last turn that waits for its answer.
        images_per_turn: the pictures shown at each turn, as long as `turns`.
        system: an optional system prompt.
    """
    messages = [{"role": "system", "content": system}] if system else []
    for (user, assistant), images in zip(turns, images_per_turn, strict=True):
        messages.append(user_message(user, images))
        if assistant is not None:
            messages.append({"role": "assistant", "content": assistant})
    return messages
