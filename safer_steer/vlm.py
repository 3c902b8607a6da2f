"""A model family is one entry here: the tokens of its chats, the unit of its picture sizes, its vision parts.

To add a family, begin with an entry; its picture limits are read from the checkpoint's own processor (`picture_size`,
which knows processors with a patch size and a merge size), the sizes of its checkpoints are in `model_families.yaml`.
"""

from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from safer_steer.errors import UserError


@dataclass(frozen=True)
class Family:
    """What differs between families of vision-language models.

    Attributes:
        name: for messages.
        processors: class names of its processors in transformers.
        turn_start: token that begins a turn, followed by the role and a line break.
        turn_end: token that ends a turn; a model that has said all it has to say gives it.
        picture_start: token before the placeholders of a picture.
        picture: the placeholder, one for each token of a picture.
        picture_end: token behind them.
        picture_unit: side in px of the square of a picture that becomes one token; sizes are multiples of it.
        vision_tower: where the vision tower is in the inner model.
        projector: where the part is there that maps into the language model, such as `visual.merger`.
        answer_role: the role of answers in the chat template.
    """

    name: str
    processors: tuple[str, ...]
    turn_start: str
    turn_end: str
    picture_start: str
    picture: str
    picture_end: str
    picture_unit: int
    vision_tower: str
    projector: str
    answer_role: str = "assistant"

    @property
    def answer_header(self) -> str:
        """What stands before an answer."""
        return f"{self.turn_start}{self.answer_role}\n"

    def tokens(self) -> tuple[str, ...]:
        """All of its special tokens that are named here."""
        return self.turn_start, self.turn_end, self.picture_start, self.picture, self.picture_end

    def vision_parts(self, model: Any) -> tuple[Any, Any] | None:
        """The tower and its projector in a model of transformers; None where one of them is not there."""
        try:
            return attrgetter(self.vision_tower)(model.model), attrgetter(self.projector)(model.model)
        except AttributeError:
            return None

    def side(self, max_pixels: int) -> int:
        """The side in px of the largest square picture within an area, a multiple of the unit."""
        return int(max_pixels**0.5) // self.picture_unit * self.picture_unit


QWEN_VL = Family(
    name="Qwen2.5-VL",
    processors=("Qwen2_5_VLProcessor",),
    turn_start="<|im_start|>",
    turn_end="<|im_end|>",
    picture_start="<|vision_start|>",
    picture="<|image_pad|>",
    picture_end="<|vision_end|>",
    picture_unit=28,
    vision_tower="visual",
    projector="visual.merger",
)
FAMILIES = (QWEN_VL,)


def family_of(tokenizer: Any, processor: Any = None) -> Family:
    """The family of a processor by its class, else the first whose tokens are all in the tokenizer's vocabulary.

    Raises:
        UserError: there is none.
    """
    for family in FAMILIES:
        if type(processor).__name__ in family.processors:
            return family
    words = tokenizer.get_vocab()
    for family in FAMILIES:
        if all(token in words for token in family.tokens()):
            return family
    raise UserError(
        f"{type(processor or tokenizer).__name__}: not of a known model family; known: "
        f"{', '.join(family.name for family in FAMILIES)}; add an entry to safer_steer/vlm.py"
    )
