"""What every engine offers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from data_construction.config import DataConfig
from safer_steer.llm import LLMClient
from safer_steer.rows import Reject

Work = Callable[[Any], Awaitable[BaseModel | Reject]]
MakeWork = Callable[[DataConfig, dict[str, LLMClient]], Work]


@dataclass(frozen=True)
class Engine:
    """A running engine: `work` makes one task's row or reject, `usage` tells what each role was called for."""

    work: Work
    usage: Callable[[], Awaitable[dict[str, dict]]]
