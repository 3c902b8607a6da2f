"""3-D position ids of vision-language batches: sequences of one length, a single sequence, mixed lengths."""

import pytest
import torch
from tensordict import TensorDict

from safer_steer_verl.platform.position_ids import fix_3d_position_ids


@pytest.mark.parametrize("lengths", [[5, 5, 5], [5], [4], [4, 4, 4, 4], [8, 8], [12, 12, 12], [5, 7, 3]])
def test_every_sequence_keeps_its_ids(lengths):
    items = [torch.arange(4 * length).reshape(4, length) + 100 * index for index, length in enumerate(lengths)]
    data = TensorDict({"position_ids": torch.nested.as_nested_tensor(items, layout=torch.jagged)}, [len(lengths)])
    fix_3d_position_ids(data)
    fixed = data["position_ids"]
    assert fixed._ragged_idx == 2
    for got, wanted in zip(fixed.unbind(), items, strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("lengths", [[8, 8], [5, 5, 5], [9, 2, 5, 5, 7], [3]])
def test_micro_batches_by_tokens_keep_every_sequences_ids(lengths):
    """`use_dynamic_bsz`, with verl's own split."""
    from verl.utils.seqlen_balancing import rearrange_micro_batches

    items = [torch.arange(4 * length).reshape(4, length) + 100 * index for index, length in enumerate(lengths)]
    nested = {"position_ids": items, "input_ids": [item[0] for item in items]}
    data = TensorDict(
        {name: torch.nested.as_nested_tensor(rows, layout=torch.jagged) for name, rows in nested.items()},
        [len(lengths)],
    )
    fix_3d_position_ids(data)
    for micro_batch, rows in zip(*rearrange_micro_batches(data, max_token_len=12), strict=True):
        fix_3d_position_ids(micro_batch)
        for got, row in zip(micro_batch["position_ids"].unbind(), rows, strict=True):
            assert torch.equal(got, items[row])


def test_other_batches_are_left_alone():
    data = TensorDict({"position_ids": torch.zeros(2, 4, 3)}, [2])
    fix_3d_position_ids(data)
    assert data["position_ids"].shape == (2, 4, 3)
    fix_3d_position_ids(TensorDict({}, [2]))
