"""What only a child process finds out, so that nothing stays on a GPU: attention on the path that training takes, and
a sum over all ranks.

    python -m rehearsal.engines attention [cpu|cuda] [padded|varlen|flash_attn]      prints one line of JSON
    torchrun ... -m rehearsal.engines all_reduce [cpu|cuda]      the first rank prints one line of JSON
"""

import json
import os
import sys
import time
from typing import Any

HEADS, KEYS, SIZE = 16, 2, 128  # of Qwen2.5-VL-3B
TOKENS = {"cpu": 256, "cuda": 8192}
REDUCED = {"cpu": 2**22, "cuda": 2**28}  # elements of fp32


def attention(device: str, path: str) -> dict[str, Any]:
    """One forward and backward pass at real head sizes; `path` as `safer_steer.attention` chooses it."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    length, cuda = TOKENS[device], device == "cuda"
    shapes = [(length, heads, SIZE) for heads in (HEADS, KEYS, KEYS)]  # two packed rows of half the length
    dtype = torch.bfloat16 if cuda else torch.float32
    q, k, v = (torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for shape in shapes)
    started = time.monotonic()
    if path == "padded":
        rows = (part.unflatten(0, (2, length // 2)).transpose(1, 2) for part in (q, k, v))
        sdpa(*rows, is_causal=True, enable_gqa=True).sum().backward()
    else:
        if path == "varlen":
            from safer_steer_verl.platform.varlen_attention import flash_attn_varlen_func
        else:
            from flash_attn import flash_attn_varlen_func
        ends = torch.tensor([0, length // 2, length], device=device, dtype=torch.int32)
        half = length // 2
        flash_attn_varlen_func(q, k, v, ends, ends, half, half, 0.0, None, True).sum().backward()
    found: dict[str, Any] = {"path": path, "torch": torch.__version__}
    if cuda:
        torch.cuda.synchronize()
        found |= {
            "gpus": torch.cuda.device_count(),
            "name": torch.cuda.get_device_name(),
            "capability": ".".join(map(str, torch.cuda.get_device_capability())),
            "memory": torch.cuda.get_device_properties(0).total_memory,
        }
    finite = bool(q.grad.isfinite().all() and k.grad.isfinite().all())
    return found | {"finite": finite, "seconds": round(time.monotonic() - started, 3)}


def all_reduce(device: str) -> dict[str, Any] | None:
    """A sum over all ranks, checked; what the first rank found."""
    import torch
    import torch.distributed as dist

    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if device == "cuda":
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    values = torch.full((REDUCED[device],), float(rank + 1), device=device)
    dist.all_reduce(values)  # builds the connections
    started = time.monotonic()
    values.fill_(float(rank + 1))
    dist.all_reduce(values)
    wanted, got, world = (
        dist.get_world_size() * (dist.get_world_size() + 1) / 2,
        values[-1].item(),
        dist.get_world_size(),
    )
    seconds = time.monotonic() - started
    dist.destroy_process_group()
    size = REDUCED[device] * 4
    return {"ranks": world, "right": got == wanted, "bytes_per_s": size / seconds} if rank == 0 else None


def main(argv: list[str]) -> int:
    """The command line; returns the exit code."""
    found = attention(argv[2], argv[3]) if argv[1] == "attention" else all_reduce(argv[2])
    if found is not None:
        print("\n" + json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
