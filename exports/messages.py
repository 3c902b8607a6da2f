"""Conversations as rows of {role, content} messages in one parquet file, with the pictures inside, so from any folder.

`messages.parquet` is TRL's form: content is a list of parts, `images` are decoded pictures in the order of the image
parts. `ms_swift.parquet` is what ms-swift and verl's SFT read: content is a text with `<image>` where a picture stands,
`images` are {bytes, path}.
"""

from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value

from exports.rows import PICTURE, Row, Rows
from safer_steer.images import png_bytes

_TEXT = Value("string")
_PARTS = List({"type": _TEXT, "text": _TEXT})
SCHEMAS = {
    "messages": Features(
        {"id": _TEXT, "messages": List({"role": _TEXT, "content": _PARTS}), "images": List(Image())}
    ).arrow_schema,
    "ms_swift": pa.schema(
        {
            "id": pa.string(),
            "messages": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
            "images": pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        }
    ),
}
ROWS_A_GROUP = 256


def write(rows: Rows, folder: Path, system_prompt: str | None) -> Path:
    """Writes the file whole or not at all, in the form that the folder's name says; returns its path."""
    path, temporary = folder / f"{folder.name}.parquet", folder / f".{folder.name}.parquet"
    schema = SCHEMAS[folder.name]
    with pq.ParquetWriter(temporary, schema) as writer:
        waiting = iter(rows)
        while group := list(islice(waiting, ROWS_A_GROUP)):
            made = [_row(row, system_prompt, parts=folder.name == "messages") for row in group]
            writer.write_table(pa.Table.from_pylist(made, schema=schema))
    temporary.replace(path)
    return path


def _row(row: Row, system_prompt: str | None, *, parts: bool) -> dict[str, Any]:
    said = [("system", system_prompt, 0)] if system_prompt is not None else []
    for exchange in row.exchanges:
        said += [("user", exchange.user, len(exchange.pictures)), ("assistant", exchange.assistant, 0)]
    messages = [{"role": role, "content": _content(text, pictures, parts=parts)} for role, text, pictures in said]
    images = [{"bytes": png_bytes(picture), "path": None} for picture in row.pictures]
    return {"id": row.id, "messages": messages, "images": images}


def _content(text: str, pictures: int, *, parts: bool) -> str | list[dict[str, str | None]]:
    if not parts:
        return PICTURE * pictures + text
    return [*[{"type": "image", "text": None}] * pictures, {"type": "text", "text": text}]
