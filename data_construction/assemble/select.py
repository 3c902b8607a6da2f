"""Which rows go where: disjoint pools by picture, a fixed order by hash, quotas by kind. No model, no file."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from data_construction.assemble.config import Split
from data_construction.assemble.facts import RowFacts
from data_construction.config import DataConfig
from data_construction.seeds import SeedRow
from safer_steer.dialogue import Kind, stable_hash

Pool = Literal["sft", "rl", "bench", "none"]
Rule = Callable[[RowFacts], str]  # why a row may not be in a split; "" when it may


@dataclass(frozen=True)
class Pools:
    """Assigns each dialogue to one pool by the content of its pictures, so that no picture is in two pools.

    A train dialogue with a picture that some bench seed has too is in no pool.
    """

    bench_pictures: frozenset[str]
    rl_share: float
    seed: int

    @classmethod
    def of(cls, config: DataConfig, seeds: Iterable[SeedRow]) -> "Pools":
        """The pools of a run."""
        pictures = frozenset(row.seed.image for row in seeds if row.split == "bench")
        return cls(pictures, config.assemble.rl_share, config.seed)

    def pool(self, row: RowFacts) -> Pool:
        """The row's pool."""
        if row.split == "bench":
            return "bench"
        if self.bench_pictures & set(row.originals):
            return "none"
        position = int(stable_hash(self.seed, "pool", sorted(row.originals)), 16) / 16**16
        return "rl" if position < self.rl_share else "sft"


@dataclass(frozen=True)
class Selection:
    """One split: its rows in order, what is missing to its quota by kind, and the rows left out with their reason.

    Rows that no quota had room for are only counted, in `not_needed`; they were not checked.
    """

    rows: list[RowFacts]
    short: dict[Kind, int] = field(default_factory=dict)
    left_out: list[tuple[RowFacts, str]] = field(default_factory=list)
    not_needed: int = 0

    def reasons(self) -> dict[str, int]:
        """How many rows were left out, by reason."""
        return dict(Counter(reason for _, reason in self.left_out).most_common())


def quotas(size: int, mix: Mapping[Kind, float]) -> dict[Kind, int]:
    """How many rows of each kind make up `size`: shares of `mix` by largest remainder."""
    total = sum(mix.values())
    exact = {kind: size * weight / total for kind, weight in mix.items()}
    result = {kind: int(share) for kind, share in exact.items()}
    rest = sorted(exact, key=lambda kind: (result[kind] - exact[kind], kind))
    for kind in rest[: size - sum(result.values())]:
        result[kind] += 1
    return result


def select(rows: Iterable[RowFacts], split: Split, seed: int, name: str, rules: Sequence[Rule] = ()) -> Selection:
    """Fills the split's quotas with the first rows in a fixed order that no rule leaves out.

    The order depends on the rows' ids and `seed` only, not on the order in which they were made.

    Args:
        rows: the split's pool; rows of kinds that are not in its mix are passed over.
        split: size and mix.
        seed: the run's seed.
        name: the split's name, so that each split has its own order.
        rules: asked in this order, and only for rows that a quota has room for.
    """
    mix = {kind: weight for kind, weight in split.mix.items() if weight}
    left = {kind: float("inf") for kind in mix} if split.size is None else quotas(split.size, mix)
    chosen, left_out, not_needed = [], [], 0
    for row in sorted(rows, key=lambda row: stable_hash(seed, name, row.id)):
        if row.kind not in left:
            continue
        if left[row.kind] <= 0:
            not_needed += 1
        elif reason := next(filter(None, (rule(row) for rule in rules)), ""):
            left_out.append((row, reason))
        else:
            left[row.kind] -= 1
            chosen.append(row)
    short = {} if split.size is None else {kind: int(number) for kind, number in left.items() if number}
    return Selection(chosen, short, left_out, not_needed)


def shares_with(others: Sequence[RowFacts]) -> Rule:
    """Leaves out rows that share a seed or a picture with `others`."""
    seeds = {row.seed for row in others}
    pictures = {picture for row in others for picture in row.originals}
    reason = "shares a seed or a picture with SFT"
    return lambda row: reason if row.seed in seeds or pictures & set(row.originals) else ""
