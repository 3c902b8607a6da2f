"""LLaMA-Factory's ShareGPT format: `safer_steer.json`, its pictures, and the `dataset_info.json` that names both.

With `dataset_dir` set to the folder and `dataset: safer_steer`, LLaMA-Factory reads it as it is.
"""

import json
from pathlib import Path
from typing import Any

from exports.rows import PICTURE, Row, Rows
from safer_steer.images import ImageStore
from safer_steer.store import write_atomic

NAME = "safer_steer"


def write(rows: Rows, folder: Path, system_prompt: str | None) -> Path:
    """Writes the three parts, `dataset_info.json` last; returns its path."""
    pictures = ImageStore(folder)
    made = [_row(row, pictures, system_prompt) for row in rows]
    write_atomic(folder / f"{NAME}.json", json.dumps(made, ensure_ascii=False, indent=1) + "\n")
    columns = {"messages": "conversations", "images": "images"}
    if system_prompt is not None:
        columns["system"] = "system"
    info = {
        NAME: {
            "file_name": f"{NAME}.json",
            "formatting": "sharegpt",
            "columns": columns,
            "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
        }
    }
    write_atomic(folder / "dataset_info.json", json.dumps(info, indent=2) + "\n")
    return folder / "dataset_info.json"


def _row(row: Row, store: ImageStore, system_prompt: str | None) -> dict[str, Any]:
    conversations = []
    for exchange in row.exchanges:
        conversations.append({"from": "human", "value": PICTURE * len(exchange.pictures) + exchange.user})
        conversations.append({"from": "gpt", "value": exchange.assistant})
    made = {"id": row.id, "conversations": conversations, "images": [store.put(picture) for picture in row.pictures]}
    return made if system_prompt is None else made | {"system": system_prompt}
