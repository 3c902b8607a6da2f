"""Rows and pictures of the tests: a dialogue in one line, a picture as the bytes of its file."""

import io
from typing import Any

from PIL import Image

from safer_steer.dialogue import Dialogue, Turn


def dialogue(name: str, *turns: Turn | str | dict, **values: Any) -> Dialogue:
    """A benign dialogue; a turn that is a text is the user's."""
    asked = [Turn(user=turn) if isinstance(turn, str) else Turn.model_validate(turn) for turn in turns]
    row = {"id": name, "source": "t", "kind": "benign", "strategy": None, "images": [], "turns": asked}
    return Dialogue.model_validate(row | values)


def png(size: tuple[int, int] = (30, 30), colour: Any = (9, 9, 9)) -> bytes:
    """A picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()
