"""What every source yields."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SourceRow:
    """A seed as its data set holds it, the picture not decoded yet.

    `picture` is anything `safer_steer.images.load_image` takes. A row that cannot be used has a `problem` that says
    why in full, the `reason` it is counted under, and whatever else is known.
    """

    id: str
    question: str = ""
    picture: Any = None
    answer: str | None = None
    source: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    reason: str = "bad seed"


class BadRow(Exception):
    """A row that cannot become a seed: the reason to count it under, and what exactly is wrong."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail
