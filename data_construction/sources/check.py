"""Reads a source in full and says what is in it: counts, rejects by reason, picture sizes, three samples."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from data_construction.sources.row import SourceRow
from safer_steer.dialogue import Pictures
from safer_steer.errors import ImageError, UserError
from safer_steer.images import decode_image, fit_image

SAMPLES = 3
EXAMPLES = 2  # of each reason


@dataclass
class Findings:
    """What `check_rows` found; rows = usable + rejected, always."""

    rows: int = 0
    usable: int = 0
    with_answer: int = 0
    resized: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    samples: list[tuple[SourceRow, tuple[int, int] | None]] = field(default_factory=list)

    def reject(self, reason: str, detail: str) -> None:
        """Counts one unusable row."""
        self.reasons[reason] += 1
        seen = self.examples.setdefault(reason, [])
        if len(seen) < EXAMPLES:
            seen.append(detail)


def check_rows(rows: Iterable[SourceRow], limit: int | None = None, pictures: Pictures = "required") -> Findings:
    """Decodes every picture as ingest does, one row at a time.

    Args:
        rows: of the source.
        limit: look at no more rows; None: at all.
        pictures: as in a config's sources.

    Raises:
        UserError: there is no row, or no row can be used.
    """
    found, ids = Findings(), set[str]()
    for row in islice(rows, limit):
        found.rows += 1
        if row.id in ids:
            found.reject("repeated seed id", f"{row.id} was there before")
        elif row.problem:
            found.reject(row.reason, row.problem)
        elif row.picture is None and pictures == "required":
            found.reject("no picture", f"seed {row.id} has no picture")
        else:
            _look_at(row, found)
        ids.add(row.id)
    if not found.usable:
        reasons = ", ".join(f"{number} {reason}" for reason, number in found.reasons.most_common()) or "there is no row"
        examples = "; ".join(text for texts in found.examples.values() for text in texts[:1])
        raise UserError(f"none of {found.rows} rows can be used ({reasons}): {examples}")
    return found


def _look_at(row: SourceRow, found: Findings) -> None:
    size = None
    if row.picture is not None:
        try:
            picture = decode_image(row.picture)
            size, fitted = picture.size, fit_image(picture)
        except ImageError as error:
            found.reject("unusable picture", f"seed {row.id}: {error}")
            return
        found.resized += fitted.size != size
        found.sizes[size] += 1
    found.usable += 1
    found.with_answer += row.answer is not None
    if len(found.samples) < SAMPLES:
        found.samples.append((row, size))


def report(found: Findings) -> Iterator[str]:
    """The findings as lines to print."""
    rejected = sum(found.reasons.values())
    yield f"rows: {found.rows:,} = {found.usable:,} usable + {rejected:,} rejected; {found.with_answer:,} answered"
    for reason, number in found.reasons.most_common():
        yield f"rejected, {reason}: {number:,}"
        yield from (f"    {text:.300}" for text in found.examples[reason])
    if wordy := found.usable - found.sizes.total():
        yield f"without a picture: {wordy:,}"
    if found.sizes:
        least, median, most = _spread(found.sizes)
        yield f"picture sizes by area: {least} smallest, {median} median, {most} largest; {len(found.sizes):,} sizes"
    yield f"pictures resized to the model's limits: {found.resized:,}"
    for row, size in found.samples:
        yield f"sample {row.id}, " + (f"picture {size[0]}x{size[1]}" if size else "no picture")
        yield f"    question: {_short(row.question)}"
        if row.answer is not None:
            yield f"    answer: {_short(row.answer)}"
        if row.meta:
            yield f"    meta: {_short(json.dumps(row.meta, ensure_ascii=False, default=str))}"


def _spread(sizes: Counter[tuple[int, int]]) -> list[str]:
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    middle, seen = (sum(sizes.values()) + 1) // 2, 0
    for median in ordered:
        seen += sizes[median]
        if seen >= middle:
            break
    return [f"{width}x{height}" for width, height in (ordered[0], median, ordered[-1])]


def _short(text: str, length: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."
