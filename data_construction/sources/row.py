"""What every reader yields."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SourceRow:
    """A seed as its data set holds it, the picture not decoded yet.

    `picture` is anything `safer_steer.images.load_image` takes, relative paths being relative to `root`. A row that
    cannot be used has a `problem` that says why, and whatever else is known.
    """

    id: str
    question: str = ""
    picture: Any = None
    answer: str | None = None
    source: str | None = None
    root: Path | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
