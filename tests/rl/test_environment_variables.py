"""Every variable that we set for an engine is one that the installed engine reads."""

import importlib.util
from pathlib import Path

import pytest

from safer_steer.servers import SERVER_CPU_ENV
from training.grpo.processes import CPU_ENV, QUIET_ENV

READ_BY = {
    "RAY_USAGE_STATS_ENABLED": "ray/_common/usage/usage_constants.py",
    "RAY": "ray/core/src/ray/raylet/raylet",  # the settings of Ray's C++ part
    "VLLM": "vllm/envs.py",
    "TORCH": "torch/_dynamo/config.py",
    "DO_NOT_TRACK": "vllm/usage/usage_lib.py",
    "TOKENIZERS": "tokenizers/tokenizers.abi3.so",
    "HYDRA": "hydra/_internal/utils.py",
    "VERL_PLATFORM": "verl/plugin/platform/platform_manager.py",
    "VERL_USE_EXTERNAL_MODULES": "verl/__init__.py",
}


@pytest.mark.parametrize("name", sorted({*CPU_ENV, *QUIET_ENV, *SERVER_CPU_ENV} - {"OMP_NUM_THREADS"}))
def test_the_engine_reads_it(name):
    key = name if name in READ_BY else name.partition("_")[0]
    package, _, path = READ_BY[key].partition("/")
    place = Path(importlib.util.find_spec(package).submodule_search_locations[0], path)
    assert name.encode() in place.read_bytes(), f"{name} does not occur in {place}"
