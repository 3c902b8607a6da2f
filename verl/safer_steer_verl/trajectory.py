"""The record of one trajectory: what the agent loop hands to the trainer, and its row in `trajectories.jsonl`.

Plain data that survives Ray and TransferQueue; no engine.
"""

from itertools import zip_longest
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel

from safer_steer.dialogue import Dialogue, Turn
from safer_steer.rubric import TurnScores

RECORD_KEY = "safer_steer"  # the agent loop's key in verl's extra_fields


class TrajectoryRecord(BaseModel):
    """One trajectory. Lists over turns hold an item a turn; those of scores are one shorter if the last is unscored."""

    dialogue_id: str
    source: str
    kind: str
    strategy: str | None = None
    images: list[str] = []
    image_turns: list[list[int]] = []  # indices into `images` for every turn; empty: all at the first
    group: str  # the prompt's uid in this step
    rollout: int  # 0 .. K-1
    users: list[str] = []
    statics: list[str] = []
    answers: list[str] = []
    scores: list[TurnScores] = []
    strategies: list[str] = []
    diagnoses: list[str] = []
    adapted: list[bool] = []  # whether the tutor wrote the question after the turn
    rewards: list[float] = []  # Eq. 4
    relocked: int = 0  # turns whose usefulness was set right by the rubric's lock
    tutor_seconds: list[float] = []  # from asking to the verdict, for every scored turn
    # Eq. 18, or the turn values of another rule, of all planned turns; empty for rules over the whole dialogue.
    tcsr: list[float] = []
    ret: float | None = None  # R of Eq. 20; None when masked
    masked: bool = False
    reason: str | None = None  # why it is masked
    unscored: bool = False  # masked because a turn has no score; max_unscored_rate counts it
    token_fault: bool = False  # masked because its tokens do not add up; max_token_fault_rate counts it
    reward_fault: bool = False  # masked because the user's reward function failed, which ends the run
    end: str = "complete"  # or "context_full", "rollout_failed", "unscored", "reward_failed"
    cut_turns: int = 0  # answers that hit the token limit or a special token
    format_problems: int = 0  # answers that are not in the tags of the answer format
    generated_tokens: int = 0
    mask_tokens: int = 0  # ones in the response mask before masking; equals generated_tokens
    turn_ends: list[int | None] = []  # response position of each answer's last generated token; None: it has none
    advantages: list[float | None] = []  # of each turn's tokens; filled in by the trainer
    tutor_usage: dict[str, Any] = {}  # the worker's tutor client so far: {"worker": ..., "stats": ...}

    def row(self, step: int, pictures: str = ".") -> Dialogue:
        """The trajectory as a dialogue row; what belongs to the rollout is in `meta`.

        Args:
            step: the training step.
            pictures: the folder that `images` are relative to, as seen from the row's file.
        """
        turns = []
        for index, (user, answer) in enumerate(zip_longest(self.users, self.answers)):  # the last may have no answer
            scored = index < len(self.scores)
            turns.append(
                Turn(
                    user=user,
                    template=self.statics[index],
                    assistant=answer,
                    scores=self.scores[index] if scored else None,
                    images=self.image_turns[index] if index < len(self.image_turns) else [],
                    meta=self._turn_meta(index) if scored else {},
                )
            )
        meta = {"step": step, "group": self.group, "rollout": self.rollout, "dialogue": self.dialogue_id}
        meta |= {"return": self.ret, "masked": self.masked, "reason": self.reason, "end": self.end}
        meta |= {
            "generated_tokens": self.generated_tokens,
            "mask_tokens": self.mask_tokens,
            "cut_turns": self.cut_turns,
        }
        return Dialogue(
            id=f"{step}:{self.group[:8]}:{self.rollout}",
            source=self.source,
            kind=self.kind,
            strategy=self.strategy,
            images=[str(PurePosixPath(pictures, image)) for image in self.images],
            turns=turns,
            meta=meta,
        )

    def _turn_meta(self, index: int) -> dict[str, Any]:
        meta: dict[str, Any] = {"attack_strategy": self.strategies[index], "diagnosis": self.diagnoses[index]}
        meta["reward"] = self.rewards[index]
        for name, values in (("next_adapted", self.adapted), ("tcsr", self.tcsr), ("advantage", self.advantages)):
            if index < len(values):
                meta[name] = values[index]
        return meta
