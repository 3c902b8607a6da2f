"""A model family is one entry here: the tokens of its chats, the unit of its picture sizes, its vision parts.

To add a family, begin with an entry (docs/add_a_family.md); a run reads the limits of its pictures from the
checkpoint's own processor (`picture_size`), the sizes of its checkpoints are in `model_families.yaml`.
"""

from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from safer_steer.errors import UserError
from safer_steer.picture_size import PictureSize


@dataclass(frozen=True)
class Family:
    """What differs between families of vision-language models.

    Attributes:
        name: for messages.
        model_types: `model_type` of its configs in transformers; the first one is the family's own.
        processors: class names of its processors in transformers.
        turn_start: token that begins a turn, followed by the role and a line break.
        turn_end: token that ends a turn; a model that has said all it has to say gives it.
        picture_start: token before the placeholders of a picture.
        picture: the placeholder, one for each token of a picture.
        picture_end: token behind them.
        picture_unit: side in px of the square of a picture that becomes one token; sizes are multiples of it.
        min_pixels: smallest area of a picture that its released processors leave as it is.
        vision_tower: where the vision tower is in the inner model.
        projectors: where the parts are there that map into the language model, such as `visual.merger`.
        answer_role: the role of answers in the chat template.
        placed: (what the chat template writes for a picture, what its processor makes of it, with one placeholder);
            None where that is the same.
        type_ids: name of the model's input that is 1 on placeholders and 0 elsewhere.
        grpo: whether the rollouts and the trainer of GRPO know it.
    """

    name: str
    model_types: tuple[str, ...]
    processors: tuple[str, ...]
    turn_start: str
    turn_end: str
    picture_start: str
    picture: str
    picture_end: str
    picture_unit: int
    min_pixels: int
    vision_tower: str
    projectors: tuple[str, ...]
    answer_role: str = "assistant"
    placed: tuple[str, str] | None = None
    type_ids: str = "mm_token_type_ids"
    grpo: bool = True

    @property
    def answer_header(self) -> str:
        """What stands before an answer."""
        return f"{self.turn_start}{self.answer_role}\n"

    def tokens(self) -> tuple[str, ...]:
        """All of its special tokens that are named here."""
        return self.turn_start, self.turn_end, self.picture_start, self.picture, self.picture_end

    def vision_parts(self, model: Any) -> tuple[Any, list[Any]]:
        """The tower and its projectors in a model of transformers."""
        return attrgetter(self.vision_tower)(model.model), [attrgetter(at)(model.model) for at in self.projectors]

    def pictures(self, max_pixels: int) -> PictureSize:
        """The sizes that its released checkpoints see within an area; a checkpoint at hand says its own."""
        return PictureSize(self.picture_unit, self.min_pixels, max_pixels)


QWEN2_5_VL = Family(
    name="Qwen2.5-VL",
    model_types=("qwen2_5_vl", "qwen2_vl"),
    processors=("Qwen2_5_VLProcessor", "Qwen2VLProcessor"),
    turn_start="<|im_start|>",
    turn_end="<|im_end|>",
    picture_start="<|vision_start|>",
    picture="<|image_pad|>",
    picture_end="<|vision_end|>",
    picture_unit=28,
    min_pixels=4 * 28**2,
    vision_tower="visual",
    projectors=("visual.merger",),
)
QWEN3_VL = replace(
    QWEN2_5_VL,
    name="Qwen3-VL",
    model_types=("qwen3_vl",),
    processors=("Qwen3VLProcessor",),
    picture_unit=32,
    min_pixels=64 * 32**2,
    projectors=("visual.merger", "visual.deepstack_merger_list"),
)
GEMMA3 = Family(
    name="Gemma 3",
    model_types=("gemma3",),
    processors=("Gemma3Processor",),
    turn_start="<start_of_turn>",
    turn_end="<end_of_turn>",
    picture_start="<start_of_image>",
    picture="<image_soft_token>",
    picture_end="<end_of_image>",
    picture_unit=56,  # its processor makes a square of 896 px and 256 tokens of every picture
    min_pixels=896**2,
    vision_tower="vision_tower",
    projectors=("multi_modal_projector",),
    answer_role="model",
    placed=("<start_of_image>", "\n\n<start_of_image><image_soft_token><end_of_image>\n\n"),
    type_ids="token_type_ids",
    grpo=False,
)
FAMILIES = (QWEN2_5_VL, QWEN3_VL, GEMMA3)


def family_of_type(model_type: str) -> Family | None:
    """The family of a config's `model_type`; None where it is another's."""
    return next((family for family in FAMILIES if model_type in family.model_types), None)


def family_of(tokenizer: Any, processor: Any = None) -> Family:
    """The family of a processor by its class; of a tokenizer alone the first whose tokens are all in its vocabulary.

    Raises:
        UserError: there is none.
    """
    for family in FAMILIES:
        if type(processor).__name__ in family.processors:
            return family
    words = tokenizer.get_vocab() if processor is None else ()  # other families' vocabularies may hold the same tokens
    for family in FAMILIES:
        if all(token in words for token in family.tokens()):
            return family
    raise UserError(
        f"{type(processor or tokenizer).__name__}: not of a known model family; known: "
        f"{', '.join(family.name for family in FAMILIES)}; add an entry to safer_steer/vlm.py"
    )
