"""Your own seeds: JSONL, JSON, CSV, TSV, parquet or a folder of `datasets.save_to_disk`, with a field map.

Fields by default those of `safer_steer.dialogue.Seed` (id, source, image, question, answer, meta), `images` for
`image`, and chat rows (`messages` or `conversations`), of which the first user message is the question. A path to a
file reads that file; of a folder or hub data set, the record files with the split's name in their path are read, all of
them when no split is asked for. A row without an id is named by its content.

In a plain question everything is text. In a chat row `<image>` marks the picture's place, as in LLaVA's and ShareGPT's
files: none or one, which is taken out; any other number contradicts the one picture, and the row is rejected.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_construction.sources.records import READERS, SAVED_DATASET
from data_construction.sources.row import BadRow
from data_construction.sources.source import Source

MARK = "<image>"
CHATS = ("messages", "conversations")


def _first_question(record: dict[str, Any], file: Path, split: str) -> Iterator[dict[str, Any]]:
    chat = next((record[name] for name in CHATS if isinstance(record.get(name), list)), None)
    if chat is None or record.get("question") is not None:
        yield record
        return
    text = next((_text(turn) for turn in chat if _role(turn) in ("user", "human")), None)
    if text is None:
        raise BadRow("no question", f"row {record.get('id')!r} has no user message")
    if text.count(MARK) > 1:
        raise BadRow("picture count", f"row {record.get('id')!r} has {text.count(MARK)} {MARK} tags for one picture")
    yield record | {"question": text.replace(MARK, "").strip()}


def _role(turn: Any) -> Any:
    return (turn.get("role") or turn.get("from")) if isinstance(turn, dict) else None


def _text(turn: dict[str, Any]) -> str | None:
    content = turn.get("content") if "content" in turn else turn.get("value")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "\n".join(part for part in parts if isinstance(part, str)) or None
    return content if isinstance(content, str) else None


_NAMES = (SAVED_DATASET, *(f"*{ending}" for ending in READERS))

SOURCE = Source(
    name="generic",
    what="your own seeds: JSONL, JSON, CSV, TSV, parquet or saved `datasets`, with a field map",
    licence=None,
    hub=None,
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
    adapt=_first_question,
)
