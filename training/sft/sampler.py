"""Order of the rows in an epoch: batches of rows of like length, so that little of a batch is padding."""

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

POOL_BATCHES = 50  # rows are sorted within pools of so many batches, so that batches stay random draws


class LengthGroupedSampler(Sampler[int]):
    """Every row once an epoch, in an order that depends on seed and epoch alone, so that a run resumes exactly.

    Args:
        lengths: tokens of each row.
        group: rows that should be of like length: those of one forward pass on all processes together.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], group: int, seed: int):
        self.lengths, self.group, self.seed = list(lengths), group, seed
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        order = random.Random(f"{self.seed}/{self.epoch}")
        rows = list(range(len(self.lengths)))
        order.shuffle(rows)
        pool = POOL_BATCHES * self.group
        groups, short = [], []
        for start in range(0, len(rows), pool):
            members = sorted(rows[start : start + pool], key=lambda row: self.lengths[row])
            cut = [members[first : first + self.group] for first in range(0, len(members), self.group)]
            groups += [group for group in cut if len(group) == self.group]
            short += [group for group in cut if len(group) < self.group]
        order.shuffle(groups)
        for group in [*groups, *short]:  # the one that is not full comes last, as the batches are cut in order
            yield from group

    def __len__(self) -> int:
        return len(self.lengths)
