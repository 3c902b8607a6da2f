"""Dialogue -> token ids and labels: every assistant turn and its end token are learnt, nothing else (Eq. 16).

The checkpoint's own chat template lays out the dialogue. Only the template's special tokens become special tokens: an
`<|image_pad|>` or `<|im_end|>` that stands in a user's or an assistant's text stays text, spelled as in every other
stage (`safer_steer.plain_text`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import UserError
from safer_steer.plain_text import as_plain_text, names_of_tokenizer
from safer_steer.vlm import family_of
from training.answers import Unusable, answered_turns

IGNORED = -100
_MARK = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True)
class Encoded:
    """One training row.

    `input_ids` and `labels` have one length, labels being -100 outside answers; `pictures` are paths in the order of
    their image blocks; `turns` counts the turns kept of the dialogue's.
    """

    input_ids: list[int]
    labels: list[int]
    pictures: list[str]
    turns: int


@dataclass(frozen=True)
class _Piece:
    """A run of plain text, or one special token of the template; `learn` when the model is to produce it."""

    text: str
    special: bool = False
    learn: bool = False


class DialogueEncoder:
    """Encodes dialogues for one processor.

    Args:
        processor: a checkpoint's processor (tokenizer, image processor, chat template).
        max_length: tokens that a row may have, pictures included.
        picture_tokens: path of a picture -> number of image tokens it takes.
        system_prompt: replaces the template's default system turn.
    """

    def __init__(
        self,
        processor: Any,
        max_length: int,
        picture_tokens: Callable[[str], int],
        system_prompt: str | None = None,
    ):
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.max_length, self.picture_tokens, self.system_prompt = max_length, picture_tokens, system_prompt
        specials = sorted((str(t) for t in self.tokenizer.added_tokens_decoder.values() if t.special), key=len)
        self._placed = family_of(self.tokenizer, processor).placed
        self._names = names_of_tokenizer(self.tokenizer)
        self._special = re.compile("(" + "|".join(re.escape(token) for token in reversed(specials)) + ")")

    def encode(self, dialogue: Dialogue) -> Encoded:
        """Encodes as many whole turns as fit; the last turns are dropped, an image block is never cut.

        Raises:
            Unusable: no turn fits, or an answer is missing or empty; ImageError for a picture that cannot be read.
        """
        turns = answered_turns(dialogue.turns)
        tokens = 0
        for count in range(len(turns), 0, -1):
            encoded = self._encode_turns(dialogue, turns[:count])
            if len(encoded.input_ids) <= self.max_length:
                return encoded
            tokens = len(encoded.input_ids)
        raise Unusable("too long", f"turn 1 alone takes {tokens} tokens, max_length is {self.max_length}")

    def _encode_turns(self, dialogue: Dialogue, turns: list[Turn]) -> Encoded:
        pictures = [path for index in range(len(turns)) for path in dialogue.images_at(index)]
        pieces = self._pieces(turns, [len(dialogue.images_at(index)) for index in range(len(turns))])
        plain = [piece.text for piece in pieces if not piece.special]
        tokens = iter(self.tokenizer(plain, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        waiting = iter(pictures)
        ids: list[int] = []
        labels: list[int] = []
        for piece in pieces:
            if not piece.special:
                new = next(tokens)
            elif piece.text == self.processor.image_token:
                new = [self.processor.image_token_id] * self.picture_tokens(next(waiting))
            else:
                new = [self.tokenizer.convert_tokens_to_ids(piece.text)]
            ids += new
            labels += new if piece.learn else [IGNORED] * len(new)
        if not any(label != IGNORED for label in labels):
            raise Unusable("no label tokens", "no answer token is left to learn from")
        return Encoded(ids, labels, pictures, len(turns))

    def _pieces(self, turns: list[Turn], pictures: list[int]) -> list[_Piece]:
        contents = [text for turn in turns for text in (turn.user, turn.assistant)]
        if self.system_prompt is not None:
            contents.insert(0, self.system_prompt)
        contents = [as_plain_text(text, self._names) for text in contents]
        parts = _MARK.split(self._render(pictures))
        if [int(mark) for mark in parts[1::2]] != list(range(len(contents))):
            raise UserError("the chat template does not show every message once and in order; use another checkpoint")
        shift = self.system_prompt is not None
        pieces: list[_Piece] = []
        text = ""
        for index, between in enumerate(parts[::2]):
            answer_before = index > 0 and (index - 1 - shift) % 2 == 1 and index - 1 >= shift
            split = self._special.split(between)
            if answer_before and split[0]:
                raise UserError("the chat template puts text between an answer and its end token; it is not supported")
            for position, part in enumerate(split):
                if position % 2 == 0:
                    text += part
                    continue
                pieces += [_Piece(text)] if text else []
                pieces.append(_Piece(part, special=True, learn=answer_before and position == 1))
                text = ""
            if index == len(contents):
                break
            if index >= shift and (index - shift) % 2 == 1:
                pieces += [_Piece(text)] if text else []
                pieces.append(_Piece(contents[index], learn=True))
                text = ""
            else:
                text += contents[index]
        return [*pieces, _Piece(text)] if text else pieces

    def _render(self, pictures: list[int]) -> str:
        """The template's text of the dialogue, with a mark in the place of every message's content."""
        messages: list[dict] = []
        if self.system_prompt is not None:
            messages.append({"role": "system", "content": _mark(0)})
        for count in pictures:
            parts = [{"type": "image"}] * count
            text = _mark(len(messages))
            content = [*parts, {"type": "text", "text": text}] if parts else text
            messages.append({"role": "user", "content": content})
            messages.append({"role": "assistant", "content": _mark(len(messages))})
        text = self.processor.apply_chat_template(messages, tokenize=False)
        return text.replace(*self._placed) if self._placed else text


def _mark(index: int) -> str:
    return f"\ue000{index}\ue001"
