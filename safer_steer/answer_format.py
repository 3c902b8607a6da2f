"""The answer format: the system prompt that asks for it and the tags that an answer is made of, as one value.

The same value reaches SFT, GRPO and evaluation. A checkpoint that was trained here carries it (`answer_format.json`),
and the stages refuse to disagree with it.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, model_validator

from safer_steer.answer_tags import THOUGHT_TAGS, SplitAnswer, check_tags, split_answer, unwrapped
from safer_steer.config import Section, load_raw
from safer_steer.store import write_atomic

FILE = "answer_format.json"


class AnswerFormat(Section):
    """In a config, the path of a YAML file stands for its content: configs/answer_format/."""

    system: str | None = None
    """System prompt of every conversation; null: the chat template's own."""
    tags: Annotated[list[str], AfterValidator(check_tags)] = []
    """Names of the tags that an answer is made of, in order; what is in the last one is said to the user and judged,
    the others hold reasoning. []: plain answers.
    """

    @model_validator(mode="after")
    def _one_wording(self) -> Self:
        asked = re.findall(r"<([A-Za-z][A-Za-z0-9_-]*)>", self.system or "")
        if asked and (lacking := [tag for tag in self.tags if tag not in asked]):
            raise ValueError(
                f"the system prompt asks for the tags {', '.join(dict.fromkeys(asked))}, and not for "
                f"{', '.join(lacking)}; give system and tags together"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _of_a_file(cls, value: Any) -> Any:
        return load_raw(value) if isinstance(value, str) else {} if value is None else value

    def split(self, text: str) -> SplitAnswer:
        """Takes an answer apart: only `answer` is said to the user, and so is judged.

        Of a plain format thoughts in their usual tags and a whole answer in `<answer>` are taken apart too: a refusal
        whose thoughts name the harm is a refusal, an answer whose thoughts never end says nothing. An answer without
        its tag is the text as it stands, less the thoughts, and `problem` says so.
        """
        names = list(dict.fromkeys([*self.tags[:-1], *THOUGHT_TAGS]))
        if self.tags:
            return split_answer(text, names, self.tags[-1])
        found = split_answer(text, names)
        return SplitAnswer(unwrapped(found.answer), found.reasoning, found.problem)

    def instruction(self) -> str:
        """What to add to the blue agent's guidelines; "" for plain answers."""
        if not self.tags:
            return ""
        pattern = "".join(f"<{tag}>...</{tag}>" for tag in self.tags)
        once = "each tag exactly once, in this order, and nothing outside of the tags"
        return f"\n\nWrite every answer as {pattern}, {once}."

    def said(self) -> str:
        """In a few words, for plans and tables."""
        tags = "".join(f"<{tag}>…</{tag}>" for tag in self.tags) or "plain answers"
        return f"{tags}, {'its own' if self.system else 'no'} system prompt"

    def write(self, checkpoint: Path) -> None:
        """Puts the format next to the weights that were trained with it."""
        write_atomic(checkpoint / FILE, json.dumps(self.model_dump(), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def of_checkpoint(cls, checkpoint: str) -> Self | None:
        """The format that a folder's weights were trained with; None where it does not say."""
        path = Path(checkpoint, FILE)
        return cls.model_validate(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def problem(self, checkpoint: str) -> str | None:
        """How the format differs from that of a checkpoint, in words; None where it does not, or none is said."""
        own = AnswerFormat.of_checkpoint(checkpoint)
        if own is None or own == self:
            return None
        return f"answer_format is {self.said()}, but {checkpoint} was trained with another one: {own.said()}"


PLAIN = AnswerFormat()
