"""A CPU platform for verl 0.9.1: `VERL_PLATFORM=cpu VERL_USE_EXTERNAL_MODULES=safer_steer_verl.platform.cpu`.

verl imports this module in each of its processes. Ray's "GPU" is only a logical resource there (`ray_init.num_gpus=1`).
"""

import types
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from verl.plugin.platform import PlatformBase, PlatformRegistry


def _device_module() -> types.ModuleType:
    """torch.cpu plus the torch.cuda-style members that verl touches."""
    module = types.ModuleType("safer_steer_cpu_device")
    for name in dir(torch.cpu):
        if not name.startswith("__"):
            setattr(module, name, getattr(torch.cpu, name))
    for name in ("set_device", "synchronize", "empty_cache", "ipc_collect", "reset_peak_memory_stats"):
        setattr(module, name, lambda *_, **__: None)
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        setattr(module, name, lambda *_, **__: 0)
    module.is_available = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: "cpu"
    module.manual_seed = module.manual_seed_all = torch.manual_seed
    module.mem_get_info = lambda *_, **__: (0, 0)
    module.get_rng_state = lambda *_, **__: torch.get_rng_state()
    module.set_rng_state = lambda state, *_, **__: torch.set_rng_state(state)
    module.get_device_name = lambda *_, **__: "cpu"
    module.get_device_capability = lambda *_, **__: (None, None)
    return module


def _nothing(self: PlatformBase, *_: Any, **__: Any) -> None:
    """What a CPU has nothing of: a choice of devices, queues to wait for, an allocator, CUDA's runtime, a profiler."""


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """The answers verl asks of a device, for a machine without one. See `PlatformBase` for what each means."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _device_module()
    set_device = synchronize = set_allocator_settings = empty_cache = cudart = profiler_start = profiler_stop = _nothing

    def is_available(self) -> bool:
        """True: a CPU is always there."""
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        """False: chosen with VERL_PLATFORM=cpu only, never detected."""
        return False

    def current_device(self) -> str:
        """The word, used as tensor.to(...); an int would mean cuda:0."""
        return "cpu"

    def device_count(self) -> int:
        """One device."""
        return 1

    def manual_seed(self, seed: int) -> None:
        """Seeds torch."""
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        """No compute capability."""
        return None, None

    def communication_backend_name(self) -> str:
        """Collectives run over gloo."""
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """CUDA's variable, which hides nothing here."""
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        """Ray's logical resource."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        """Variables that keep Ray from touching device visibility."""
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        """False: weights travel through shared memory."""
        return False

    @contextmanager
    def nvtx_range(self, msg: str):
        """No NVTX: an empty range."""
        yield


_init_process_group = dist.init_process_group


def _init_process_group_once(backend: str | None = None, *args, **kwargs):
    """Verl builds f"cpu:gloo,{device}:{backend}"; with device cpu, torch rejects the duplicate."""
    if isinstance(backend, str) and backend.split(",") == ["cpu:gloo", "cpu:gloo"]:
        backend = "cpu:gloo"
    return _init_process_group(backend, *args, **kwargs)


dist.init_process_group = dist.distributed_c10d.init_process_group = _init_process_group_once
