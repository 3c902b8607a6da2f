"""Which rows go where: disjoint pools by picture, a fixed order by hash, quotas by kind, and a mean number of turns.

No model, no file.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from data_construction.assemble.config import Split
from data_construction.assemble.facts import RowFacts
from data_construction.config import DataConfig
from data_construction.seeds import SeedRow
from safer_steer.dialogue import Kind, stable_hash

Pool = Literal["sft", "rl", "bench", "none"]
Rule = Callable[[RowFacts], str]  # why a row may not be in a split; "" when it may
CLOSE = 0.005  # turns: the same two decimals
STEEPEST = 128.0  # a tilt at which the number of turns alone decides
HALVINGS = 64


@dataclass(frozen=True)
class Pools:
    """Assigns each dialogue to one pool by the content of its pictures, so that no picture is in two pools; one without
    pictures by its seed's question.

    A train dialogue with a picture that some bench seed has too is in no pool.
    """

    bench_pictures: frozenset[str]
    rl_share: float
    seed: int

    @classmethod
    def of(cls, config: DataConfig, seeds: Iterable[SeedRow]) -> "Pools":
        """The pools of a run."""
        pictures = frozenset(row.seed.content for row in seeds if row.split == "bench")
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

    Rows that no quota had room for are only counted, in `not_needed`; they were not checked. `note` says which mean
    number of turns could not be reached, and is "" otherwise.
    """

    rows: list[RowFacts]
    short: dict[Kind, int] = field(default_factory=dict)
    left_out: list[tuple[RowFacts, str]] = field(default_factory=list)
    not_needed: int = 0
    note: str = ""

    @property
    def mean_turns(self) -> float:
        """User turns of a row on average; 0 without a row."""
        return sum(row.turns for row in self.rows) / max(1, len(self.rows))

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
    """Fills the split's quotas with rows that no rule leaves out, so that they have its mean number of turns.

    Without `mean_turns` the first rows in a fixed order are taken. It depends on the rows' ids and `seed` only, not on
    the order in which they were made. With it, rows are drawn with weights exp(tilt x turns), the smallest change of
    their lengths that has this mean: the tilt is found by bisection. The mean is then within one exchange of two rows
    of it, or as near as the candidates allow, and `note` says so.

    Args:
        rows: the split's pool; rows of kinds that are not in its mix are left out.
        split: size, mix and mean number of turns.
        seed: the run's seed.
        name: the split's name, so that each split has its own order.
        rules: asked in this order, and only for rows that a quota has room for.
    """
    mix = {kind: weight for kind, weight in split.mix.items() if weight}
    wanted = {kind: float("inf") for kind in mix} if split.size is None else quotas(split.size, mix)
    rows = list(rows)
    drawn = [(_gumbel(seed, name, row.id), row) for row in rows if row.kind in mix]
    pool = _Pool(sorted(drawn, key=lambda item: (-item[0], item[1].id)), wanted, rules)
    chosen = pool.draw(0.0) if split.mean_turns is None else _with_mean(pool, split.mean_turns)
    outside = [(row, "kind not in its mix") for row in rows if row.kind not in mix]
    return replace(chosen, left_out=[*chosen.left_out, *outside])


def _gumbel(*parts: object) -> float:
    """Gumbel noise out of a hash. The first k rows by weight + noise are k draws, by exp(weight), without return."""
    uniform = ((int(stable_hash(*parts), 16) >> 12) + 0.5) / 2**52  # in (0, 1)
    return -math.log(-math.log1p(-uniform))


@dataclass(frozen=True)
class _Pool:
    """Rows with their noise, in falling order of it."""

    rows: Sequence[tuple[float, RowFacts]]
    quotas: Mapping[Kind, float]
    rules: Sequence[Rule]
    _asked: dict[str, str] = field(default_factory=dict)

    def draw(self, tilt: float) -> Selection:
        """The selection at a tilt; its mean number of turns never falls as the tilt rises."""
        left, left_out, not_needed = dict(self.quotas), [], 0
        taken: set[str] = set()
        for _, row in sorted(self.rows, key=lambda item: -item[0] - tilt * item[1].turns) if tilt else self.rows:
            if left[row.kind] <= 0:
                not_needed += 1
            elif reason := self._why_not(row):
                left_out.append((row, reason))
            else:
                left[row.kind] -= 1
                taken.add(row.id)
        short = {kind: int(number) for kind, number in left.items() if 0 < number < float("inf")}
        chosen = [row for _, row in self.rows if row.id in taken]
        if tilt:  # the noise of the rows that a tilt chose depends on their length, and so would the file's order
            chosen.sort(key=lambda row: row.id)
        return Selection(chosen, short, left_out, not_needed)

    def _why_not(self, row: RowFacts) -> str:
        if row.id not in self._asked:
            self._asked[row.id] = next(filter(None, (rule(row) for rule in self.rules)), "")
        return self._asked[row.id]


def _with_mean(pool: _Pool, target: float) -> Selection:
    best = pool.draw(0.0)
    if not best.rows or abs(best.mean_turns - target) <= CLOSE:
        return best
    longer = best.mean_turns < target
    edge = pool.draw(STEEPEST if longer else -STEEPEST)
    if edge.mean_turns < target - CLOSE if longer else edge.mean_turns > target + CLOSE:
        most, advice = ("most", "longer") if longer else ("least", "shorter")
        said = f"{edge.mean_turns:.2f} turns on average is the {most} that the candidates allow, {target:.2f} was asked"
        return replace(edge, note=f"{said} for: make more or {advice} dialogues (turns), or change mean_turns")
    low, high = (0.0, STEEPEST) if longer else (-STEEPEST, 0.0)
    for _ in range(HALVINGS):
        found = pool.draw(middle := (low + high) / 2)
        best = min(best, found, key=lambda selection: abs(selection.mean_turns - target))
        if abs(best.mean_turns - target) <= CLOSE:
            break
        low, high = (middle, high) if found.mean_turns < target else (low, middle)
    return best


def shares_with(others: Sequence[RowFacts]) -> Rule:
    """Leaves out rows that share a seed or a picture with `others`."""
    seeds = {row.seed for row in others}
    pictures = {picture for row in others for picture in row.originals}
    reason = "shares a seed or a picture with SFT"
    return lambda row: reason if row.seed in seeds or pictures & set(row.originals) else ""
