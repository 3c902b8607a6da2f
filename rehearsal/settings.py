"""The rehearsal's command line: configs, the rehearsal's own keys, and keys of the stages.

`device=` and `layers=` are the rehearsal's, as is everything that begins with `rehearse.`; any other key=value goes to
each config that knows the key.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import OmegaConf
from pydantic import Field

from safer_steer.config import Section, validate
from safer_steer.errors import UserError

PREFIX = "rehearse."
SHORT = ("device", "layers")


class Settings(Section):
    """How to rehearse."""

    device: Literal["cpu", "cuda"] | None = None
    """Null: that of each config."""
    layers: Annotated[int, Field(ge=1)] | None = None
    """Of text and of vision; null: all."""
    folder: str = "outputs/rehearsal"
    """What the rehearsal writes; removed at its start, and but for the table at its end."""
    processor: str | None = None
    """Folder with the model's tokenizer and processor; null: the checkpoint's."""
    family: str | None = None
    """Of safer_steer/model_families.yaml, where neither checkpoint nor name says it."""
    tokens: Annotated[int, Field(ge=128)] | None = None
    """Longest sequence; null: the config's, 1,024 under device=cpu."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Where a CPU takes the place of GPUs. bfloat16: half the memory; without AVX-512 a hundredth of the speed."""
    rows: Annotated[int, Field(ge=1)] = 50
    """Real rows that the data checks look at."""
    engines: bool = True
    """False: the checks that take seconds only."""
    keep: bool = False
    """Keep weights and run folders, to look at."""
    gpu_hour_usd: Annotated[float, Field(ge=0)] = 2.0
    """An assumption, as in benchmarks/scaling.yaml: put your own."""


def split(arguments: list[str]) -> tuple[list[str], Settings, list[str]]:
    """Config files, the rehearsal's settings, and the overrides that are left for the stages.

    Raises:
        UserError: no config, or a setting that does not fit.
    """
    configs = [item for item in arguments if "=" not in item]
    if not configs:
        raise UserError("no config; give those of the stages to rehearse, for example configs/grpo/qwen2_5_vl_3b.yaml")
    if lost := [str(Path(item).absolute()) for item in configs if not Path(item).is_file()]:
        raise UserError(f"config file not found: {', '.join(lost)}; see configs/ for the ones that exist")
    own, rest = [], []
    for item in arguments:
        key = item.partition("=")[0]
        if key.startswith(PREFIX) or key in SHORT:
            own.append(item.removeprefix(PREFIX))
        elif "=" in item:
            rest.append(item)
    data: Any = OmegaConf.to_container(OmegaConf.from_dotlist(own))
    return configs, validate(Settings, data, "rehearsal"), rest
