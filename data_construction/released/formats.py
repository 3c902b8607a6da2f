"""The rows of the released files, by their field names, as dialogues and back.

    sft    conversations [{from, value}] or messages [{role, content}], system, images    (ShareGPT)
    rl     question [{role, content}], metadata.rest_messages, images, label
    bench  question_id, image, messages_fixed [{role, content}], category, risk_trajectory

Field names are those of the authors' public code, which reads the files; the files themselves were not at hand. Other
fields are kept in `meta.released`, so that the row can be written again. `<image>` at the beginning or end of a user
message marks the place of a picture; elsewhere it is text. Without a mark, all pictures belong to the first turn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from data_construction.sources.row import BadRow
from safer_steer.dialogue import Dialogue, Kind, Turn, dialogue_id

Format = Literal["sft", "rl", "bench"]
Row = Mapping[str, Any]
MARK = "<image>"
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
BENIGN = ("benign", "safe")  # labels and categories of harmless rows; a row that does not say so counts as an attack


@dataclass(frozen=True)
class Content:
    """A row's messages as (role, text), its pictures as it names them, and its other fields, some below `metadata`."""

    messages: list[tuple[str, str]]
    pictures: list[Any]
    fields: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)


def _read_sft(row: Row) -> Content:
    name = "conversations" if "conversations" in row else "messages"
    messages = _messages(row, name)
    if row.get("system") and messages[0][0] != "system":
        messages = [("system", str(row["system"])), *messages]
    return Content(messages, _pictures(row), _without(row, name, "system", "images"))


def _read_rl(row: Row) -> Content:
    metadata = row.get("metadata")
    if not isinstance(metadata, Mapping):
        raise BadRow("bad fields", f"metadata must be an object with rest_messages, got {_short(metadata)}")
    messages = [*_messages(row, "question"), *_messages(metadata, "rest_messages", may_be_empty=True)]
    fields = _without(row, "question", "metadata", "images")
    return Content(messages, _pictures(row) or _pictures(metadata), fields, _without(metadata, "rest_messages"))


def _read_bench(row: Row) -> Content:
    if row.get("question_id") in (None, ""):
        raise BadRow("bad fields", "no question_id")
    risks = row.get("risk_trajectory")
    if risks is not None and not (isinstance(risks, list) and all(isinstance(risk, int | float) for risk in risks)):
        raise BadRow("bad fields", f"risk_trajectory must be a list of numbers, got {_short(risks)}")
    return Content(_messages(row, "messages_fixed"), _pictures(row), _without(row, "image", "messages_fixed"))


READ: dict[Format, Callable[[Row], Content]] = {"sft": _read_sft, "rl": _read_rl, "bench": _read_bench}


def to_dialogue(row: Row, form: Format, source: str, store: Callable[[Any], str]) -> Dialogue:
    """A released row as a dialogue.

    Args:
        row: as the file holds it.
        form: of the file.
        source: of the dialogue.
        store: stores a picture, as the row names it; gives its path for `Dialogue.images`, by content.

    Raises:
        BadRow: it is none; the reason and the field.
        ImageError: `store` raised it.
    """
    content = READ[form](row)
    messages, named = content.messages, content.fields | content.metadata
    meta: dict[str, Any] = {"released": {"format": form, "fields": content.fields, "metadata": content.metadata}}
    if messages[0][0] == "system":
        meta["system"] = messages.pop(0)[1]
    if isinstance(named.get("category"), str):
        meta["category"] = named["category"]
    turns = _turns(messages, len(content.pictures))
    kind, images = _kind(named), [store(picture) for picture in content.pictures]
    said = [text for turn in turns for text in (turn.user, turn.assistant or "")]
    own_id = str(named.get("question_id") or named.get("id") or "")
    name = dialogue_id(source, own_id, kind, None, [*said, *images])
    meta |= {"seed": own_id or name, "split": "bench" if form == "bench" else "train"}
    return Dialogue(id=name, source=source, kind=kind, strategy=None, images=images, turns=turns, meta=meta)


def _write_sft(row: Dialogue, kept: Row | None, system: list[tuple[str, str]]) -> dict[str, Any]:
    if number := next((n for n, turn in enumerate(row.turns, start=1) if turn.assistant is None), 0):
        raise BadRow("missing answer", f"turn {number} of {len(row.turns)} has no answer")
    names = {"user": "human", "assistant": "gpt"}
    fields = kept["fields"] if kept else {"kind": row.kind}
    said = [{"from": names[role], "value": text} for role, text in _marked(row)]
    return {**fields, "conversations": said, **dict(system), "images": row.images}


def _write_rl(row: Dialogue, kept: Row | None, system: list[tuple[str, str]]) -> dict[str, Any]:
    fields = kept["fields"] if kept else {"label": row.kind}
    metadata = kept["metadata"] if kept else {"question_id": row.id, "kind": row.kind}
    messages, first = [*system, *_marked(row)], len(system) + 1
    question, rest = _said(messages[:first]), _said(messages[first:])
    return {**fields, "question": question, "metadata": {**metadata, "rest_messages": rest}, "images": row.images}


def _write_bench(row: Dialogue, kept: Row | None, system: list[tuple[str, str]]) -> dict[str, Any]:
    if len(row.images) > 1 or any(row.images_at(turn) for turn in range(1, len(row.turns))):
        raise BadRow("picture count", "a row of STEER-Bench has one picture, shown at the first turn")
    risks = [turn.meta["risk"] for turn in row.turns if "risk" in turn.meta]
    category = row.meta.get("category") or row.meta.get("benchmark") or row.kind
    own = {"question_id": row.id, "category": category, "risk_trajectory": risks, "kind": row.kind}
    messages = [*system, *(message for turn in row.turns for message in _pair(turn, turn.user))]
    image = row.images[0] if row.images else ""
    return {**(kept["fields"] if kept else own), "image": image, "messages_fixed": _said(messages)}


WRITE = {"sft": _write_sft, "rl": _write_rl, "bench": _write_bench}


def to_released(row: Dialogue, form: Format) -> dict[str, Any]:
    """A dialogue as a row of a released file; one that was read from there has its fields again, others have `kind`.

    Raises:
        BadRow: the file's format cannot hold it.
    """
    kept = row.meta.get("released")
    system = [("system", row.meta["system"])] if row.meta.get("system") else []
    return WRITE[form](row, kept if kept and kept["format"] == form else None, system)


def _messages(row: Row, name: str, *, may_be_empty: bool = False) -> list[tuple[str, str]]:
    value = row.get(name)
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if value is None and may_be_empty:
        value = []
    if not isinstance(value, list) or not (value or may_be_empty):
        raise BadRow("bad fields", f"{name} must be a list of messages, got {_short(value)}")
    found = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, Mapping):
            raise BadRow("bad message", f"{name}, message {number}: not an object: {_short(message)}")
        role, text = message.get("role", message.get("from")), message.get("content", message.get("value"))
        if isinstance(text, list):
            if other := [part for part in text if not _is_text(part)]:
                raise BadRow("bad message", f"{name}, message {number}: a part that is no text: {_short(other[0])}")
            text = " ".join(part["text"] for part in text)
        if not isinstance(role, str) or role not in ROLES or not isinstance(text, str):
            raise BadRow("bad message", f"{name}, message {number}: no role of {', '.join(ROLES)} with a text")
        found.append((ROLES[role], text))
    return found


def _is_text(part: Any) -> bool:
    known = isinstance(part, Mapping) and part.get("type", "text") in ("text", "input_text", "output_text")
    return known and isinstance(part.get("text"), str)


def _pictures(row: Row) -> list[Any]:
    value = row.get("images") or row.get("image") or []
    return value if isinstance(value, list) else [value]


def _turns(messages: Sequence[tuple[str, str]], pictures: int) -> list[Turn]:
    pairs: list[list[str]] = []
    for number, (role, text) in enumerate(messages, start=1):
        if role == "user":
            pairs.append([text])
        elif role == "system" or not pairs or len(pairs[-1]) > 1:
            raise BadRow("bad message", f"message {number} is the {role}'s, where the user's is due")
        else:
            pairs[-1].append(text)
    users = [_without_marks(pair[0]) for pair in pairs]
    marks = [number for _, number in users]
    if sum(marks) not in (0, pictures):
        raise BadRow("picture count", f"{sum(marks)} {MARK} marks for {pictures} pictures")
    if not pairs or (empty := [number for number, (text, _) in enumerate(users, start=1) if not text.strip()]):
        raise BadRow("no question", f"user turn {empty[0]} is empty" if pairs else "no message is the user's")
    if not sum(marks):
        marks[0] = pictures
    shown = [list(range(sum(marks[:turn]), sum(marks[: turn + 1]))) for turn in range(len(pairs))]
    return [
        Turn(user=user, assistant=pair[1] if len(pair) > 1 else None, images=images)
        for (user, _), pair, images in zip(users, pairs, shown, strict=True)
    ]


def _without_marks(text: str) -> tuple[str, int]:
    """The text without the marks at its ends, and their number."""
    number = 0
    while (inner := text.strip()).startswith(MARK) or inner.endswith(MARK):
        text = inner.removeprefix(MARK) if inner.startswith(MARK) else inner.removesuffix(MARK)
        text, number = text.strip(), number + 1
    return text, number


def _marked(dialogue: Dialogue) -> list[tuple[str, str]]:
    """The messages, a mark for each picture before the text."""
    shown = [len(dialogue.images_at(number)) for number in range(len(dialogue.turns))]
    turns = zip(dialogue.turns, shown, strict=True)
    return [message for turn, number in turns for message in _pair(turn, MARK * number + turn.user)]


def _pair(turn: Turn, user: str) -> list[tuple[str, str]]:
    return [("user", user), *([("assistant", turn.assistant)] if turn.assistant is not None else [])]


def _said(messages: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in messages]


def _kind(named: Mapping[str, Any]) -> Kind:
    if named.get("kind") in get_args(Kind):
        return named["kind"]
    said = {str(named.get(name)).lower() for name in ("label", "category")}
    return "benign" if said & set(BENIGN) else "red_team"


def _without(row: Row, *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def _short(value: Any) -> str:
    return f"{value!r:.60}"
