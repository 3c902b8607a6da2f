"""Your own seeds: JSONL, JSON, CSV, TSV, parquet or a folder of `datasets.save_to_disk`, with a field map.

Fields by default those of `safer_steer.dialogue.Seed` (id, source, image, question, answer, meta), `images` for
`image`, and chat rows (`messages` or `conversations`), of which the first user message is the question. A path to a
file reads that file; of a folder or hub data set, the record files with the split's name in their path are read, all of
them when no split is asked for. A row without an id is named by its content.

The picture of a chat row is in a field of the row, or a part of its first user message. In a plain question everything
is text. In a chat row `<image>` at the beginning or end of the message marks the picture's place, as in LLaVA's and
ShareGPT's files, and is taken out; in the middle, or where a part of the message is the picture, it is text. More than
one contradicts the one picture, and the row is rejected.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_construction.sources.records import READERS, SAVED_DATASET
from data_construction.sources.row import BadRow
from data_construction.sources.source import Source
from data_construction.sources.values import as_list_or_object
from safer_steer.picture_field import ENCODED, NAMED

MARK = "<image>"
CHATS = ("messages", "conversations")


def _first_question(record: dict[str, Any], file: Path, split: str) -> Iterator[dict[str, Any]]:
    chats = (as_list_or_object(record.get(name)) for name in CHATS)
    chat = next((value for value in chats if isinstance(value, list)), None)
    if chat is None or record.get("question") is not None:
        yield record
        return
    turn = next((turn for turn in chat if _role(turn) in ("user", "human")), None)
    content = turn and (turn.get("content") if turn.get("content") is not None else turn.get("value"))
    parts = content if isinstance(content, list) else [content]
    texts = [text for part in parts if isinstance(text := _text(part), str)]
    pictures = [part for part in parts if _is_picture(part)]
    text = "\n".join(texts)
    if not text.strip():
        raise BadRow("no question", f"row {record.get('id')!r} has no user message")
    if not pictures:
        text = _without_mark(text, record.get("id"))
    own = any(record.get(name) is not None for name in ("image", "images"))
    yield record | {"question": text.strip()} | ({} if own or not pictures else {"image": pictures})


def _without_mark(text: str, name: Any) -> str:
    if text.count(MARK) > 1:
        raise BadRow("picture count", f"row {name!r} has {text.count(MARK)} {MARK} tags for one picture")
    return text.strip().removeprefix(MARK).removesuffix(MARK)


def _role(turn: Any) -> Any:
    return (turn.get("role") or turn.get("from")) if isinstance(turn, dict) else None


def _text(part: Any) -> Any:
    return part.get("text") if isinstance(part, dict) else part


def _is_picture(part: Any) -> bool:
    """Whether a part of a message is a picture, or marks the place of one."""
    if not isinstance(part, dict) or isinstance(part.get("text"), str):
        return False
    return "image" in str(part.get("type")) or any(part.get(name) for name in (*ENCODED, *NAMED))


_NAMES = (SAVED_DATASET, *(f"*{ending}" for ending in READERS))

SOURCE = Source(
    name="generic",
    what="your own seeds: JSONL, JSON, CSV, TSV, parquet or saved `datasets`, with a field map",
    licence=None,
    any_data_set=True,
    splits={"all": [f"**/{name}" for name in _NAMES]},
    other_splits=[
        *(f"**/{{split}}{name}" for name in _NAMES if name != SAVED_DATASET),
        *(f"**/{{split}}/{name}" for name in _NAMES),
    ],
    fields={
        "id": "id",
        "source": "source",
        "image": ("image", "images"),
        "question": "question",
        "answer": "answer",
        "meta": "meta",
    },
    columns=CHATS,
    adapt=_first_question,
)
