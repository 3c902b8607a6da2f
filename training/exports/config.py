"""Configuration of an export: which rows, which formats, which answer tags."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from safer_steer.answer_format import AnswerFormat
from safer_steer.answer_tags import check_tags
from safer_steer.config import Section
from safer_steer.picture_size import MAX_PIXELS, PixelLimit

Format = Literal["messages", "llama_factory", "verl"]


class VerlExport(Section):
    """What verl's prompts depend on besides the rows."""

    model: str
    """Folder or hub name: its tokenizer counts the prompt's tokens and names the special ones."""
    max_prompt_length: Annotated[int, Field(ge=16)]
    """Tokens of the first prompt, pictures included."""


class ExportConfig(Section):
    """Everything `python -m training.exports.run` needs."""

    root: str = "outputs"
    """Folder of the whole run, which others of the config lie below."""
    data: str
    """Dialogue rows; picture paths are relative to its folder."""
    output: str
    """Folder to write: one folder per format, rejects.jsonl, run.json."""
    formats: Annotated[list[Format], Field(min_length=1)]
    """TRL's conversations, LLaMA-Factory's ShareGPT, verl's prompts."""
    answer_format: AnswerFormat = AnswerFormat()
    """System prompt put before every dialogue, and the tags that every answer must be made of; rows with another answer
    are rejected. A YAML file (configs/answer_format/) or its content.
    """
    write_tags: Annotated[list[str], AfterValidator(check_tags)] | None = None
    """What to write instead: as many tags, in the same order, or [] for the last part alone; null: the same tags."""
    max_pixels: PixelLimit = MAX_PIXELS
    """Px of one picture; larger ones are reduced."""
    verl: VerlExport | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.write_tags and len(self.write_tags) != len(self.answer_format.tags):
            raise ValueError(
                f"write_tags {self.write_tags} must be as many as answer_format.tags {self.answer_format.tags}, or []"
            )
        if "verl" in self.formats and self.verl is None:
            raise ValueError("format verl needs verl.model and verl.max_prompt_length")
        return self

    @property
    def tags_written(self) -> list[str]:
        """The tags of the answers in the export."""
        return self.answer_format.tags if self.write_tags is None else self.write_tags
