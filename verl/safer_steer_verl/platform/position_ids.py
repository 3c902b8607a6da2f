"""A fix of verl 0.9.1 that GPUs need too: 3-D position ids of a vision-language batch whose sequences have one length.

verl keeps position ids as a nested tensor of (4, length) items. When all items have the same length, or there is only
one, torch makes the "4" axis the ragged one, and verl's `maybe_fix_3d_position_ids` then only relabels the axis: the
batch fails later with a `split_sizes` error, or its rows are mixed up. `fix_3d_position_ids` rebuilds such a tensor
ragged on the length axis.
"""

import torch

MOST_CHANNELS = 4  # text, time, height, width: more rows are several items on top of one another


def fix_3d_position_ids(data) -> None:
    """Makes `data["position_ids"]`, if it is a nested (batch, 4, ragged length) tensor, ragged on its length axis, in
    place.

    Args:
        data: a TensorDict; without such a field nothing happens.
    """
    if "position_ids" not in data.keys():  # noqa: SIM118  (a TensorDict has no `in`)
        return
    nested = data["position_ids"]
    if not (nested.is_nested and nested.dim() == 3):
        return
    values, offsets = nested._values, nested._offsets
    items, last = offsets.numel() - 1, int(offsets[-1])
    if values.shape[0] != last or (values.shape[1] == last and values.shape[0] <= MOST_CHANNELS):
        nested._ragged_idx = 2  # verl's own fix: the index is lost by pickling
        return
    channels, length = values.shape[0] // items, values.shape[1]
    rebuilt = values.reshape(items, channels, length).permute(1, 0, 2).reshape(channels, items * length).contiguous()
    lengths = torch.arange(items + 1, device=values.device) * length
    data["position_ids"] = torch.nested.nested_tensor_from_jagged(rebuilt, lengths, jagged_dim=2)


def install() -> None:
    """Puts the fix where verl looks for its own."""
    from verl.utils import tensordict_utils
    from verl.workers import engine_workers
    from verl.workers.engine import base

    for module in (tensordict_utils, engine_workers, base):
        module.maybe_fix_3d_position_ids = fix_3d_position_ids
