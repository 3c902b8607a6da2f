"""What a prompt shows of untrusted text: a block that no text can close, with a dialogue as a readable transcript.

    <<<DATA 3f0c9a6be1d24075
    turn 1, user (shows picture 1):
    | What is on the table?
    turn 1, assistant:
    | A kettle and two cups.
    latest turn 2, user:
    | Is it hot?
    3f0c9a6be1d24075 DATA>>>

Every line of text begins with "| ", so that none can pass for a heading or for the end, and the delimiters hold a hash
of what is between them. The same data give the same block, in every run.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2 import Undefined

from safer_steer.dialogue import stable_hash

DATA_OPEN, DATA_CLOSE = "<<<DATA", "DATA>>>"
FIRST = "no earlier turns"
EMPTY = "empty"
_DIALOGUE = ("history", "user", "pictures", "assistant")
_BLOCK = re.compile(rf"{DATA_OPEN} (?P<fence>[0-9a-f]{{16}})\n(?P<data>.*?)\n(?P=fence) {DATA_CLOSE}", re.DOTALL)
_BREAK = r"\r\n|[\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]"
_TURN = re.compile(r"(latest )?turn \d+, (user|assistant)(?: \((?:shows pictures? ([\d, ]+)|[^)]*)\))?:")


def data_block(data: Any) -> str:
    """The data between delimiters, in the order of its keys, which is the order in which a model reads them.

    Args:
        data: name -> text, number or other JSON. `history`, `user`, `pictures` and `assistant` are a dialogue and are
            shown as its turns: `history` holds {user, assistant, pictures}, or user texts alone; `user` and `assistant`
            are the latest turn; `pictures` are the numbers (from 1) of those that a user turn shows.

    Raises:
        TypeError: a value is not JSON.
    """
    text = "\n".join(_mapping(data) if isinstance(data, Mapping) else _json("data", data))
    fence = stable_hash(text)
    return f"{DATA_OPEN} {fence}\n{text}\n{fence} {DATA_CLOSE}"


def _mapping(data: Mapping[str, Any]) -> Iterator[str]:
    dialogue = {name: data[name] for name in _DIALOGUE if name in data} if {"history", "user"} & data.keys() else {}
    for name, value in data.items():
        if name in dialogue:
            yield from _turns(dialogue)
            dialogue = dict.fromkeys(dialogue)
        else:
            yield from _field(name, value)


def _turns(dialogue: Mapping[str, Any]) -> Iterator[str]:
    if all(value is None for value in dialogue.values()):  # shown already
        return
    earlier = [item if isinstance(item, Mapping) else {"user": item} for item in dialogue.get("history", [])]
    if "history" in dialogue and not earlier:
        yield FIRST
    for number, turn in enumerate(earlier, start=1):
        yield from _turn(f"turn {number}", turn)
    if "user" in dialogue:
        yield from _turn(f"latest turn {len(earlier) + 1}", dialogue)


def _turn(title: str, turn: Mapping[str, Any]) -> Iterator[str]:
    pictures = turn.get("pictures")
    shown = f" (shows picture{'s' * (len(pictures) > 1)} {', '.join(map(str, pictures))})" if pictures else ""
    yield f"{title}, user{shown}:\n{_quoted(turn['user'])}"
    if (answer := turn.get("assistant")) is not None:
        yield f"{title}, assistant{'' if str(answer).strip() else f' ({EMPTY})'}:\n{_quoted(answer)}"


def _field(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield f"{name}:\n{_quoted(value)}"
    elif value is None or isinstance(value, bool | int | float):
        yield f"{name}: {json.dumps(value)}"
    else:
        yield from _json(name, value)


def _json(name: str, value: Any) -> Iterator[str]:
    yield f"{name} (JSON):\n{_quoted(json.dumps(value, ensure_ascii=False, indent=1, default=_refuse))}"


def _refuse(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # a strict one raises its own error, which names the variable
    raise TypeError(f"a prompt's data must be JSON, got {type(value).__name__}")


def _quoted(text: str) -> str:
    """The text with "| " before every line; "<|", with which special tokens begin, is broken by a backslash."""
    plain = re.sub(r"<(\\*)\|", r"<\1\\|", str(text))
    return "| " + re.sub(_BREAK, r"\g<0>| ", plain)


def _unquoted(text: str) -> str:
    plain = re.sub(rf"({_BREAK})\| ", r"\1", text[2:])
    return re.sub(r"<(\\*)\\\|", r"<\1|", plain)


def transcript(
    history: Sequence[tuple[str, str | None]], pictures: Sequence[int]
) -> tuple[list[dict[str, Any]], dict[str, list[int]]]:
    """A dialogue's earlier turns as a data block takes them, and the pictures of the latest turn.

    Args:
        history: (user, assistant) of the earlier turns; None as answer leaves it out.
        pictures: how many pictures each turn shows first, the latest one included; they are numbered through.

    Returns:
        `history` of a data block, and {"pictures": numbers} of the latest turn, {} when it shows none.
    """
    last, numbered = 0, []
    for count in pictures:
        numbered.append({"pictures": [*range(last + 1, last + count + 1)]} if count else {})
        last += count
    turns = []
    for (user, answer), shown in zip(history, numbered[: len(history)], strict=True):
        turns.append({"user": user, **shown} | ({} if answer is None else {"assistant": answer}))
    return turns, numbered[len(history)] if len(numbered) > len(history) else {}


def parse_data_block(text: str) -> Any:
    """The data of the first block in a prompt; pictures that are not shown are not in it.

    Raises:
        ValueError: there is no block.
    """
    if (found := _BLOCK.search(text)) is None:
        raise ValueError(f"no data block between {DATA_OPEN} and {DATA_CLOSE}")
    data: dict[str, Any] = {}
    for heading, body in _sections(found["data"]):
        if heading == FIRST:
            data["history"] = []
        elif turn := _TURN.fullmatch(heading):
            latest, who, pictures = turn.groups()
            _place(data, who, _unquoted(body), [int(item) for item in (pictures or "").split(", ") if item], latest)
        elif heading.endswith(" (JSON):"):
            data[heading.removesuffix(" (JSON):")] = json.loads(_unquoted(body))
        elif heading.endswith(":"):
            data[heading[:-1]] = _unquoted(body)
        else:
            name, _, value = heading.partition(": ")
            data[name] = json.loads(value)
    if "history" in data and all(turn.keys() == {"user"} for turn in data["history"]):
        data["history"] = [turn["user"] for turn in data["history"]]
    return data


def _place(data: dict[str, Any], who: str, text: str, pictures: list[int], latest: str | None) -> None:
    if not latest and who == "user":
        data.setdefault("history", []).append({})
    turn = data if latest else data["history"][-1]
    turn[who] = text
    if pictures:
        turn["pictures"] = pictures


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Each heading with the quoted lines below it."""
    heading, body = "", list[str]()
    for line in text.split("\n"):
        if line.startswith("| "):
            body.append(line)
            continue
        if heading:
            yield heading, "\n".join(body)
        heading, body = line, []
    if heading:
        yield heading, "\n".join(body)
