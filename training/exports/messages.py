"""TRL's conversational format: `messages.parquet` with the pictures inside.

`datasets.load_dataset("parquet", data_files="messages.parquet")` gives columns `id`, `messages` (a list of {role,
content}, content a list of {type, text} parts) and `images` (decoded pictures, in the order of the image parts), which
TRL's `SFTTrainer` takes as they are.
"""

from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value

from safer_steer.images import png_bytes
from training.exports.rows import Row, Rows

FEATURES = Features(
    {
        "id": Value("string"),
        "messages": List(
            {"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})}
        ),
        "images": List(Image()),
    }
)
ROWS_A_GROUP = 256


def write(rows: Rows, folder: Path, system_prompt: str | None) -> Path:
    """Writes the file whole or not at all; returns its path."""
    path, temporary = folder / "messages.parquet", folder / ".messages.parquet"
    schema = FEATURES.arrow_schema
    with pq.ParquetWriter(temporary, schema) as writer:
        waiting = iter(rows)
        while group := list(islice(waiting, ROWS_A_GROUP)):
            writer.write_table(pa.Table.from_pylist([_row(row, system_prompt) for row in group], schema=schema))
    temporary.replace(path)
    return path


def _row(row: Row, system_prompt: str | None) -> dict[str, Any]:
    messages = [_message("system", system_prompt, 0)] if system_prompt is not None else []
    for exchange in row.exchanges:
        messages.append(_message("user", exchange.user, len(exchange.pictures)))
        messages.append(_message("assistant", exchange.assistant, 0))
    images = [{"bytes": png_bytes(picture), "path": None} for picture in row.pictures]
    return {"id": row.id, "messages": messages, "images": images}


def _message(role: str, text: str, pictures: int) -> dict[str, Any]:
    parts = [{"type": "image", "text": None}] * pictures
    return {"role": role, "content": [*parts, {"type": "text", "text": text}]}
