"""Which generated tokens of a turn are kept, and whether the ids of a whole trajectory are what the chat template says.

A trajectory grows by appending ids: generated ones (mask 1) and context (mask 0). Two things can go wrong without any
crash: a turn's ids hold a special token that belongs to the template, or boundary tokens are lost or doubled between
turns. `keep_turn` prevents the first, `TokenAccount.problem` finds the second.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from safer_steer.picture_size import processor_tokens
from safer_steer.plain_text import as_plain_text, names_of_tokenizer
from safer_steer.vlm import family_of


@dataclass(frozen=True)
class KeptTurn:
    """The usable ids of one generated turn.

    `ids` are trained on (mask 1). `closed` is False when the turn did not end with the end token (cut at the token
    limit, or cut here at a special token); the agent loop then appends the end token with mask 0.
    """

    ids: list[int]
    closed: bool


def keep_turn(generated: Sequence[int], end_id: int, special_ids: frozenset[int]) -> KeptTurn:
    """Cuts a generated turn at the first special token.

    The end token is kept, as the last id. Any other special token (another message header, a picture placeholder, end
    of text) is dropped with all that follows: inside an answer it would forge a turn or a picture.
    """
    for position, token in enumerate(generated):
        if token == end_id:
            return KeptTurn(list(generated[: position + 1]), closed=True)
        if token in special_ids:
            return KeptTurn(list(generated[:position]), closed=False)
    return KeptTurn(list(generated), closed=False)


def special_token_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of a tokenizer's special tokens; added words such as tags that count as ordinary text are not among them."""
    added = (token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special)
    return frozenset(tokenizer.all_special_ids) | frozenset(added)


def collapse_runs(ids: Sequence[int], placeholder_ids: frozenset[int]) -> list[int]:
    """The ids with every run of a placeholder shortened to one, as the rollout engine and the bare template have it."""
    kept: list[int] = []
    for token in ids:
        if token in placeholder_ids and kept and kept[-1] == token:
            continue
        kept.append(token)
    return kept


class TokenAccount:
    """Compares a trajectory's ids with the chat template of its messages.

    Text outside the answers must give identical ids. An answer's ids are the sampled ones, which need not be the
    tokenizer's own ids of the same text: another spelling, a line break that the template's own would swallow, text
    that the tokenizer normalises (Qwen: to NFC, so a decomposed é is another character) or that spells a special token.
    An answer is therefore tokenized again as text, and these ids are compared. Picture placeholders are compared
    collapsed; their number is checked by `placeholder_problem`.
    """

    def __init__(self, tokenizer: Any, processor: Any, template_kwargs: dict | None = None):
        family = family_of(tokenizer, processor)
        self.tokenizer, self.processor = tokenizer, processor
        self.names = names_of_tokenizer(tokenizer)
        self.start_id = tokenizer.convert_tokens_to_ids(family.turn_start)
        self.answer_header = family.answer_header
        self.special_ids = special_token_ids(tokenizer)
        self.template_kwargs = template_kwargs or {}
        names = ("image_token_id", "video_token_id")
        self.placeholders = frozenset(
            value for name in names if isinstance(value := getattr(processor, name, None), int)
        )

    def expected_ids(self, messages: list[dict]) -> list[int]:
        """Ids of the whole dialogue by the template, one placeholder for each picture; answers are plain text."""
        messages = [
            message | {"content": as_plain_text(message["content"], self.names)}
            if message["role"] == "assistant"
            else message
            for message in messages
        ]
        source = self.processor if self.processor is not None else self.tokenizer
        text = source.apply_chat_template(messages, tokenize=False, add_generation_prompt=False, **self.template_kwargs)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def problem(self, ids: Sequence[int], messages: list[dict]) -> str | None:
        """What differs between a trajectory's ids and the template of `messages`; None when nothing does.

        Args:
            ids: prompt and response ids, ending with the end token of the last answer.
            messages: the whole dialogue, its last message the last answer.
        """
        actual = self._messages(collapse_runs(ids, self.placeholders))
        expected = self._messages(self.expected_ids(messages))
        if len(actual) != len(expected):
            return f"{len(actual)} messages in the ids, {len(expected)} in the template"
        for number, (got, want) in enumerate(zip(actual, expected, strict=True)):
            if number == len(actual) - 1:
                want = want[: len(want) - self._trailing(got, want)]
            if got == want:
                continue
            if self._as_text(got) == want:
                continue
            return (
                f"message {number} is {self.tokenizer.decode(got)!r}, the template has {self.tokenizer.decode(want)!r}"
            )
        return None

    def placeholder_problem(self, ids: Sequence[int], images: Sequence[Any]) -> str | None:
        """Whether the expanded picture placeholders in `ids` are as many as `images` (PIL, all shown so far) need.

        The number of a dialogue without new pictures is thus the same at every turn; expanding twice is found here.
        """
        image_processor = getattr(self.processor, "image_processor", None)
        if not hasattr(image_processor, "get_number_of_image_patches"):
            return None
        expected = sum(processor_tokens(image_processor, image.width, image.height) for image in images)
        found = sum(token in self.placeholders for token in ids)
        return None if found == expected else f"{found} picture placeholders, {expected} expected"

    def _messages(self, ids: Sequence[int]) -> list[list[int]]:
        parts: list[list[int]] = [[]]
        for token in ids:
            if token == self.start_id:
                parts.append([])
            parts[-1].append(token)
        return [part for part in parts if part]

    def _as_text(self, message: list[int]) -> list[int] | None:
        """An answer's ids as the tokenizer would spell its text, which keeps no special token; None for another role.

        The ids around it (start and end of the message) stay as they are.
        """
        text = self.tokenizer.decode(message)
        if not text.startswith(self.answer_header):
            return None
        end = next((at for at in range(1, len(message)) if message[at] in self.special_ids), len(message))
        body = self.tokenizer.decode(message[:end]).removeprefix(self.answer_header)
        plain = self.answer_header + as_plain_text(body, self.names) + self.tokenizer.decode(message[end:])
        return list(self.tokenizer(plain, add_special_tokens=False)["input_ids"])

    def _trailing(self, got: list[int], want: list[int]) -> int:
        """1 when the template continues after the last answer's end token (Qwen: a newline) and the ids stop there."""
        return int(bool(got) and bool(want) and got[-1] != want[-1] and len(want) > 1 and want[-2] == got[-1])
