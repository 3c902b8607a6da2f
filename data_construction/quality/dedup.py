"""Duplicates among dialogues, exact and near: `Duplicates` finds them, `deduplicate` drops them from Stage I's rows.

Rows are taken bench first, then by id, and each is compared with the rows kept before it, of all kinds: so the result
does not depend on the order in which rows were made, and no train row displaces a bench row.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datasketch import MinHash, MinHashLSH

from data_construction.config import NearDuplicates
from data_construction.quality.turns import words
from safer_steer.dialogue import Dialogue, stable_hash
from safer_steer.store import dump_row, read_with_offsets, replacing

EXACT, NEAR = "duplicate", "near duplicate"
SEED = 1  # of the permutations: the same signatures in every run


class Match(NamedTuple):
    """The row that another one repeats: why (`EXACT` or `NEAR`), its name and label, and the similarity in (0, 1]."""

    reason: str
    name: str
    label: str
    similarity: float


class Content(NamedTuple):
    """What of a dialogue is compared."""

    exact: str
    pictures: str
    words: MinHash | None


class Duplicates:
    """The dialogues taken in so far, found again by their pictures and words.

    Args:
        settings: what counts as a near-duplicate; None: only exact ones are found.
    """

    def __init__(self, settings: NearDuplicates | None):
        self._settings = settings
        self._exact: dict[str, tuple[str, str]] = {}
        self._near: dict[str, tuple[str, MinHash]] = {}
        if settings:
            self._empty = MinHash(num_perm=settings.permutations, seed=SEED)
            # Found rows are compared by their whole signatures, so a false find costs time only: weigh misses more.
            threshold, weights = min(settings.threshold, 0.95), (0.02, 0.98)
            found = MinHashLSH(threshold=threshold, num_perm=settings.permutations, weights=weights)
            bands = (found.b, found.r)
            self._groups = defaultdict(partial(MinHashLSH, num_perm=settings.permutations, params=bands))

    def content(self, row: Dialogue) -> Content:
        """What `find` and `add` take."""
        signature = None
        if self._settings:
            signature = self._empty.copy()
            signature.update_batch(shingles((turn.user for turn in row.turns), self._settings.shingle_words))
        return Content(exact_key(row), " ".join(sorted(row.images)), signature)

    def find(self, content: Content) -> Match | None:
        """The row taken in that has the same content, or the one most like it; of equals the first name."""
        if same := self._exact.get(content.exact):
            return Match(EXACT, *same, 1.0)
        if self._settings is None:
            return None
        names = sorted(self._group(content).query(content.words))
        like = {name: content.words.jaccard(self._near[name][1]) for name in names}
        best = max(like, key=like.__getitem__, default=None)
        if best is None or like[best] < self._settings.threshold:
            return None
        return Match(NEAR, best, self._near[best][0], like[best])

    def add(self, content: Content, name: str, label: str) -> None:
        """Takes a row in under a name of its own; the label says what it belongs to."""
        self._exact.setdefault(content.exact, (name, label))
        if self._settings:
            self._near[name] = (label, content.words)
            self._group(content).insert(name, content.words)

    def _group(self, content: Content) -> MinHashLSH:
        """The index of the rows that this one is compared with."""
        return self._groups[content.pictures if self._settings.among == "same_picture" else ""]


def exact_key(row: Dialogue) -> str:
    """The same for two dialogues with the same pictures and the same words, case and white space apart."""
    turns = [[" ".join((text or "").casefold().split()) for text in (t.user, t.assistant)] for t in row.turns]
    return stable_hash(sorted(row.images), turns)


def shingles(users: Iterable[str], size: int) -> set[bytes]:
    """The text's runs of `size` words; a shorter text is one shingle."""
    found = words(" ".join(users))
    return {" ".join(found[start : start + size]).encode() for start in range(max(1, len(found) - size + 1))}


def deduplicate(candidates: Path, kept: Path, dropped: Path, settings: NearDuplicates | None) -> Counter[str]:
    """Writes both output files again; returns how many rows were dropped, by reason.

    Args:
        candidates: dialogues, one per line, in any order.
        kept: where the lines that stay go, unchanged.
        dropped: id of each dropped row, of the row it repeats, and their similarity.
        settings: what counts as a near-duplicate; None: only exact ones are dropped.

    Raises:
        UserError: a line is not a dialogue.
    """
    counts: Counter[str] = Counter()
    order = sorted(
        (row.meta.get("split") != "bench", row.id, offset) for offset, row in read_with_offsets(candidates, Dialogue)
    )
    duplicates = Duplicates(settings)
    with replacing(kept) as stays, replacing(dropped) as leaves, candidates.open("rb") as lines:
        for _, _, offset in order:
            lines.seek(offset)
            line = lines.readline().decode("utf-8")
            row = Dialogue.model_validate(json.loads(line))
            content = duplicates.content(row)
            if match := duplicates.find(content):
                facts = {"id": row.id, "task": row.meta.get("task"), "kind": row.kind, "reason": match.reason}
                facts |= {"of": match.name, "of_kind": match.label, "similarity": round(match.similarity, 3)}
                leaves.write(dump_row(facts) + "\n")
                counts[match.reason] += 1
            else:
                duplicates.add(content, row.id, row.kind)
                stays.write(line)
    return counts
