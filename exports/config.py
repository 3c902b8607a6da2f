"""Configuration of an export: of which rows or which finished runs, in which formats."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from safer_steer.answer_format import PLAIN, AnswerFormat
from safer_steer.answer_tags import check_tags
from safer_steer.config import Section
from safer_steer.dialogue import Pictures
from safer_steer.picture_size import MAX_PIXELS, PixelLimit
from safer_steer.vlm import family_of_type

Format = Literal["messages", "llama_factory", "ms_swift", "verl", "inspect", "model_card", "dataset_card"]
NEEDS: dict[Format, tuple[str, ...]] = {
    "messages": ("data",),
    "llama_factory": ("data",),
    "ms_swift": ("data",),
    "verl": ("data", "verl"),
    "inspect": ("evaluation",),
    "model_card": ("training",),
    "dataset_card": ("data",),
}
Types = Literal["qwen2_5_vl", "qwen3_vl"]


class VerlExport(Section):
    """What verl's prompts depend on besides the rows."""

    model: str
    """Folder or hub name: its tokenizer counts the prompt's tokens and names the special ones."""
    max_prompt_length: Annotated[int, Field(ge=16)]
    """Tokens of the first prompt, pictures included."""
    pictures: Pictures = "required"
    """`optional`: dialogues without a picture are written too; `required`: rejected."""


class ExportConfig(Section):
    """Everything `python -m exports.run` needs."""

    root: str = "outputs"
    """Folder of the whole run, which others of the config lie below."""
    output: str
    """Folder to write: one folder per format, rejects.jsonl, run.json."""
    formats: Annotated[list[Format], Field(min_length=1)]
    """Of rows: for TRL, LLaMA-Factory, ms-swift, verl. Of finished runs: inspect's logs, the hub's cards."""
    data: str | None = None
    """Dialogue rows; picture paths are relative to its folder, and the records there are what the dataset card says."""
    answer_format: AnswerFormat = PLAIN
    """System prompt put before every dialogue, and the tags that every answer must be made of; rows with another answer
    are rejected. A YAML file (configs/answer_format/) or its content.
    """
    write_tags: Annotated[list[str], AfterValidator(check_tags)] | None = None
    """What to write instead, in answers and the system prompt: as many tags, in the same order, or [] for the last part
    alone; null: the same tags.
    """
    max_pixels: PixelLimit = MAX_PIXELS
    """Px of one picture; larger ones are reduced."""
    family: Types = "qwen2_5_vl"
    """`model_type` of the model to be trained: pictures get a size that its processor leaves as it is. For verl,
    `verl.model` says it.
    """
    verl: VerlExport | None = None
    evaluation: str | None = None
    """Output folder of a finished evaluation: for inspect's logs, and the numbers of the model card."""
    training: list[str] = []
    """Run folders of the stages that made the model, in order: SFT, GRPO."""
    evaluated: str | None = None
    """The model's name in the evaluation."""
    license: str | None = None
    """Of model and data, as the hub names licences, such as cc-by-nc-4.0; no record says it."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.write_tags and len(self.write_tags) != len(self.answer_format.tags):
            raise ValueError(
                f"write_tags {self.write_tags} must be as many as answer_format.tags {self.answer_format.tags}, or []"
            )
        system = self.answer_format.system or ""
        if self.write_tags == [] and any(f"<{tag}>" in system for tag in self.answer_format.tags):
            raise ValueError(
                "write_tags [] writes answers without the tags that answer_format.system asks for; set it to null"
            )
        known = family_of_type(self.family)
        if known and self.max_pixels < (least := known.min_pixels):
            raise ValueError(
                f"max_pixels {self.max_pixels} is below {known.name}'s smallest picture, {least} px; raise it"
            )
        for name in self.formats:
            if lacking := [key for key in NEEDS[name] if not getattr(self, key)]:
                raise ValueError(f"format {name} needs {' and '.join(lacking)}")
        if self.evaluation and "model_card" in self.formats and self.evaluated is None:
            raise ValueError("format model_card needs evaluated, the model's name in the evaluation")
        return self

    @property
    def tags_written(self) -> list[str]:
        """The tags of the answers in the export."""
        return self.answer_format.tags if self.write_tags is None else self.write_tags

    @property
    def system_written(self) -> str | None:
        """The system prompt in the export: it asks for the tags written."""
        names = dict(zip(self.answer_format.tags, self.tags_written, strict=False))
        system = self.answer_format.system
        return system and re.sub(r"(?<=<)(/?)([\w-]+)(?=>)", lambda tag: tag[1] + names.get(tag[2], tag[2]), system)
