"""Length-grouped order: every row once, the same for a seed and an epoch, and much less padding."""

import random

from hypothesis import given
from hypothesis import strategies as st

from training.sft.sampler import LengthGroupedSampler


@given(st.lists(st.integers(1, 500), min_size=1, max_size=300), st.integers(1, 9), st.integers(0, 3))
def test_every_row_once_whatever_the_epoch(lengths, group, epoch):
    sampler = LengthGroupedSampler(lengths, group, seed=1)
    sampler.epoch = epoch
    assert len(sampler) == len(lengths)
    assert sorted(sampler) == list(range(len(lengths)))
    assert list(sampler) == list(sampler), "resuming draws the same order again"


def padding(order, lengths, group):
    batches = [[lengths[row] for row in order[i : i + group]] for i in range(0, len(order), group)]
    return 1 - sum(lengths) / sum(max(batch) * len(batch) for batch in batches)


def test_epochs_differ_and_padding_shrinks():
    draw = random.Random(0)
    lengths = [draw.randint(50, 500) for _ in range(1003)]
    sampler = LengthGroupedSampler(lengths, 8, seed=1)
    first = list(sampler)
    sampler.epoch = 1
    second = list(sampler)
    assert first != second
    shuffled = draw.sample(range(1003), 1003)
    assert padding(first, lengths, 8) < 0.05 < 0.3 < padding(shuffled, lengths, 8)
    means = [sum(lengths[row] for row in second[i : i + 8]) / 8 for i in range(0, 1000, 8)]
    assert means != sorted(means), "long and short batches are mixed"
