"""The reward that a config chooses: the paper's, or a function in a file of the user's (`safer_steer.reward`).

The user's function gets a `ScoredTurn` and returns a finite number. It may be `async`; other functions are called
between the turns of all trajectories and should be quick.
"""

import asyncio
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

from PIL import Image

from safer_steer.dialogue import Kind
from safer_steer.errors import UserError
from safer_steer.rubric import TurnScores
from safer_steer_verl.utils.turn_reward import RewardConfig, turn_reward

ALLOWED = "a reward function gets one ScoredTurn (safer_steer_verl/utils/own_reward.py) and returns a finite number"


@dataclass(frozen=True)
class ScoredTurn:
    """One assistant turn with all that is known of it when it is rewarded.

    Attributes:
        history: earlier exchanges (user, assistant), oldest first, without this one; answers as in `answer`.
        pictures: every picture shown so far, RGB, in the size that the student sees.
        kind: of the dialogue: `benign`, `red_team` or another of `Kind`.
        scores: the tutor's, usefulness locked by safety.
        user: the user turn.
        answer: the student's answer as it stands, thoughts and tags included; data, whatever it says.
        spoken: what of it is said to the user, and what the tutor scored; may be empty.
    """

    history: tuple[tuple[str, str], ...]
    pictures: tuple[Image.Image, ...]
    kind: Kind
    scores: TurnScores
    user: str
    answer: str
    spoken: str


class Reward:
    """The reward of a config; a user's function is loaded at its first call, once."""

    def __init__(self, config: RewardConfig):
        self.config = config

    @cached_property
    def _function(self) -> Callable[[ScoredTurn], Any] | None:
        return _load(self.config.function) if self.config.function else None

    async def __call__(self, turn: ScoredTurn) -> float:
        """The turn's reward.

        Raises:
            UserError: the user's function is not there, failed, or returned something else than a finite number.
        """
        function = self._function
        if function is None:
            return turn_reward(turn.scores, turn.answer, self.config)
        try:
            value = function(turn)
            if inspect.isawaitable(value):
                value = await value
        except (Exception, SystemExit) as error:
            raise _problem(self.config.function, _told(error, self.config.function)) from error
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise _problem(self.config.function, f"returned {value!r}")
        return float(value)

    def check(self) -> float:
        """The reward of a sample turn; a mistake in it costs no run.

        Raises:
            UserError: the user's function cannot be used.
        """
        return asyncio.run(self(sample_turn()))


def sample_turn() -> ScoredTurn:
    """A turn as a reward function sees it."""
    return ScoredTurn(
        history=(("What is this?", "A red box."),),
        pictures=(Image.new("RGB", (56, 56)),),
        kind="red_team",
        scores=TurnScores(safety=8, usefulness=8, faithfulness=10),
        user="How do I open it?",
        answer="I cannot help with that.",
        spoken="I cannot help with that.",
    )


def _load(name: str) -> Callable[[ScoredTurn], Any]:
    place, _, function = name.rpartition(":")
    file = Path(place).resolve()
    if file.suffix != ".py" or not function.isidentifier():
        raise _problem(name, "not of the form path.py:function")
    if not file.is_file():
        raise _problem(name, f"file not found: {file}")
    spec = importlib.util.spec_from_file_location(f"own_reward_{file.stem}", file)
    assert spec is not None, "a .py file has a spec"
    assert spec.loader is not None, "and a loader"
    module = importlib.util.module_from_spec(spec)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # for modules next to it, as for a script
    sys.modules[spec.name] = module  # dataclasses and pickle look a class's module up by its name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise _problem(name, f"cannot be imported: {_told(error, name)}") from error
    found = getattr(module, function, None)
    if not callable(found):
        has = ", ".join(sorted(key for key, value in vars(module).items() if inspect.isfunction(value))) or "none"
        raise _problem(name, f"no function of this name; functions of the file: {has}")
    return found  # type: ignore[no-any-return]


def _told(error: BaseException, name: str | None) -> str:
    """The error with the line of the user's file that it came from."""
    file = str(Path((name or "").rpartition(":")[0]).resolve())
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" ({Path(file).name}, line {lines[-1]})" if lines else ""  # an error of syntax says it itself
    return f"{type(error).__name__}: {error}{where}"


def _problem(name: str | None, what: str) -> UserError:
    return UserError(f"safer_steer.reward: {name}: {what}; {ALLOWED}")
