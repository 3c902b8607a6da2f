"""Which rows go where: disjoint pools by picture, a fixed order by hash, quotas by kind. No model, no file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from data_construction.config import DataConfig, Split
from data_construction.seeds import SeedRow
from safer_steer.dialogue import Dialogue, Kind, stable_hash

Pool = Literal["sft", "rl", "bench", "none"]


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

    def pool(self, row: Dialogue) -> Pool:
        """The row's pool."""
        if row.meta["split"] == "bench":
            return "bench"
        pictures = original_pictures(row)
        if self.bench_pictures & set(pictures):
            return "none"
        position = int(stable_hash(self.seed, "pool", sorted(pictures)), 16) / 16**16
        return "rl" if position < self.rl_share else "sft"


def quotas(size: int, mix: Mapping[Kind, float]) -> dict[Kind, int]:
    """How many rows of each kind make up `size`: shares of `mix` by largest remainder."""
    total = sum(mix.values())
    exact = {kind: size * weight / total for kind, weight in mix.items()}
    result = {kind: int(share) for kind, share in exact.items()}
    rest = sorted(exact, key=lambda kind: (result[kind] - exact[kind], kind))
    for kind in rest[: size - sum(result.values())]:
        result[kind] += 1
    return result


def select(rows: Iterable[Dialogue], split: Split, seed: int, name: str) -> tuple[list[Dialogue], dict[Kind, int]]:
    """The split's rows in a fixed order, and by kind how many are missing to its quota.

    The order depends on the rows' ids and `seed` only, not on the order in which they were made.
    """
    ordered = sorted(rows, key=lambda row: stable_hash(seed, name, row.id))
    mix = {kind: weight for kind, weight in split.mix.items() if weight}
    if split.size is None:
        return [row for row in ordered if row.kind in mix], {}
    left = quotas(split.size, mix)
    chosen = []
    for row in ordered:
        if left.get(row.kind, 0) > 0:
            left[row.kind] -= 1
            chosen.append(row)
    return chosen, {kind: number for kind, number in left.items() if number}


def without_shared(rows: Sequence[Dialogue], others: Sequence[Dialogue]) -> list[Dialogue]:
    """The rows that share neither a seed nor a picture with `others`."""
    seeds = {row.meta["seed"] for row in others}
    pictures = {picture for row in others for picture in original_pictures(row)}
    return [row for row in rows if row.meta["seed"] not in seeds and not pictures & set(original_pictures(row))]


def original_pictures(row: Dialogue) -> list[str]:
    """The row's pictures as its data set holds them: an injected picture stands for the one it was made from."""
    injected = row.meta.get("injector")
    return [injected["original"] if injected and image == injected["image"] else image for image in row.images]
