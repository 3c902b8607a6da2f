"""The data of the transcript browser: an index of all dialogues and, in chunks, their text.

answers and verdicts of every model -> `write_browser_data` -> `data/index.js`, `data/<chunk>.js`, `pictures/*.png`.

The page is opened from disk, where a browser lets it load scripts but not JSON: each file is one call of a function of
ours with one string literal, which `JSON.parse` reads. Model text is hostile: in the literal no character can end it,
and it becomes nothing but text in the page. Pictures are decoded and encoded again, never passed on byte for byte.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from evaluation.multi_turn.aggregate import Numbers, plain_rows
from evaluation.multi_turn.moves import move_of
from evaluation.multi_turn.survival import FAILURE_BELOW, first_failing_turn
from evaluation.multi_turn.verdicts import VerdictRow, verdict_id
from safer_steer.dialogue import Dialogue
from safer_steer.errors import ImageError
from safer_steer.images import load_image, pixel_hash, png_bytes
from safer_steer.store import write_atomic

CHUNK = 40  # dialogues
TITLE_CHARS = 160
# Characters that could end a script element, start a comment or an entity, or end a line of JavaScript.
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def call_script(function: str, *arguments: Any) -> str:
    """A script file that hands data to a function of the page: every argument travels as JSON inside one string."""
    text = json.dumps(list(arguments), ensure_ascii=True, allow_nan=False)
    return f"{function}(JSON.parse({json.dumps(text, ensure_ascii=True).translate(_ESCAPES)}));\n"


@dataclass(frozen=True)
class ModelFiles:
    """One model's rows for the browser, by id, and the folder that its picture paths are relative to."""

    title: str
    folder: Path
    answers: dict[str, Dialogue]
    verdicts: dict[str, VerdictRow]
    outcomes: dict[str, Numbers]


def chosen_dialogues(tables: list[pd.DataFrame], limit: int) -> tuple[set[str], int]:
    """Which dialogues to show, and how many there are; of more than `limit`, those that a model failed go first."""
    keys = list(dict.fromkeys(key for table in tables for key in table.index))
    failed = {key for table in tables for key in table.index[table.safe.eq(False).fillna(False)]}
    return set(sorted(keys, key=lambda key: key not in failed)[:limit]), len(keys)


class Pictures:
    """The browser's pictures, each once, made small, named by where they came from."""

    def __init__(self, folder: Path, longest_side: int):
        self._folder, self._side = folder, longest_side
        self._names: dict[Path, str | None] = {}

    def add(self, path: Path) -> str | None:
        """The file name of a picture; None when it cannot be read, which the page says."""
        path = path.resolve()
        if path not in self._names:
            self._names[path] = self._write(path)
        return self._names[path]

    def names(self) -> set[str]:
        """The files in use."""
        return {name for name in self._names.values() if name}

    def _write(self, path: Path) -> str | None:
        try:
            picture = load_image(path)
        except ImageError:
            return None
        picture.thumbnail((self._side, self._side), Image.Resampling.LANCZOS)
        name = f"{pixel_hash(picture)}.png"
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / name).write_bytes(png_bytes(picture))
        return name


def model_entry(model: ModelFiles, dialogue: str, failure_below: float = FAILURE_BELOW) -> dict | None:
    """What the list shows and filters by, for one model and one dialogue; None when it has not played it."""
    answers, outcome = model.answers.get(dialogue), model.outcomes.get(dialogue)
    if answers is None or outcome is None:
        return None
    verdicts = [model.verdicts.get(verdict_id(dialogue, turn)) for turn in range(1, outcome["length"] + 1)]
    scores = [row.scores.harmlessness if row and row.scores else None for row in verdicts]
    fails = first_failing_turn(scores, failure_below)
    moves = model_moves(answers)
    return {
        "safe": outcome["safe"],
        "help": outcome["help"],
        "harm": outcome["harmlessness"],
        "useful": outcome["helpfulness"],
        "worst": min((score for score in scores if score is not None), default=None),
        "fails": fails,
        "by": moves[fails - 1] if moves and fails else None,
        "end": answers.meta["end"],
        "unscored": outcome["unscored"],
    }


def model_moves(dialogue: Dialogue) -> list[str]:
    """The tutor's move behind each user turn; empty where no tutor was asked."""
    metas = [turn.meta for turn in dialogue.turns]
    return [move_of(*item) for item in enumerate(metas, 1)] if any("adapted" in meta for meta in metas) else []


def model_turns(dialogue: Dialogue, base: Dialogue, verdicts: dict[str, VerdictRow]) -> list[dict]:
    """The turns of one model; the user's words only where they differ from those of `base`."""
    turns, moves = [], model_moves(dialogue)
    for number, turn in enumerate(dialogue.turns, 1):
        row = verdicts.get(verdict_id(dialogue.id, number))
        entry: dict[str, Any] = {"assistant": turn.assistant, "outcome": turn.meta.get("outcome")}
        if number > len(base.turns) or turn.user != base.turns[number - 1].user:
            entry["user"] = turn.user
        if moves and turn.assistant is not None:
            entry["move"] = moves[number - 1]
        if row and row.scores:
            entry |= {"harm": row.scores.harmlessness, "help": row.scores.helpfulness}
            entry |= {"harmWhy": row.scores.harmlessness_rationale, "helpWhy": row.scores.helpfulness_rationale}
        elif row:
            entry["unscored"] = row.unscored
        turns.append(entry)
    return turns


def write_browser_data(
    folder: Path,
    models: list[ModelFiles],
    *,
    total: int,
    failure_below: float,
    picture_side: int,
    note: str | None,
) -> None:
    """Writes index, chunks and pictures below `folder`.

    Args:
        folder: the report folder.
        models: the rows to show.
        total: number of dialogues of the evaluation, of which these may be a part.
        failure_below: harmlessness of a failed turn.
        picture_side: longest side of a picture, px.
        note: said on top of the page.
    """
    first: dict[str, Dialogue] = {}
    for model in models:
        for key, dialogue in model.answers.items():
            first.setdefault(key, dialogue)
    keys = list(first)
    pictures = Pictures(folder / "pictures", picture_side)
    entries = []
    for number, start in enumerate(range(0, len(keys), CHUNK)):
        chunk = {key: _dialogue(first[key], models, pictures) for key in keys[start : start + CHUNK]}
        write_atomic(folder / "data" / f"{number}.js", call_script("steerChunk", number, chunk))
        entries += [_index_entry(first[key], models, failure_below, number) for key in chunk]
    _remove_others(folder / "data", r"\d+\.js", {f"{number}.js" for number in range(math.ceil(len(keys) / CHUNK))})
    _remove_others(folder / "pictures", r"[0-9a-f]{16}\.png", pictures.names())
    index = {"note": note, "models": [model.title for model in models], "total": total, "dialogues": entries}
    write_atomic(folder / "data" / "index.js", call_script("steerIndex", index))


def _remove_others(folder: Path, ours: str, keep: set[str]) -> None:
    """Removes files of an earlier report: those whose name this report uses and that are not written any more."""
    for path in folder.glob("*") if folder.is_dir() else ():
        if re.fullmatch(ours, path.name) and path.name not in keep:
            path.unlink()


def _index_entry(dialogue: Dialogue, models: list[ModelFiles], failure_below: float, chunk: int) -> dict:
    category = dialogue.meta.get("category")
    return {
        "id": dialogue.id,
        "benchmark": dialogue.meta["benchmark"],
        "kind": dialogue.kind,
        "strategy": dialogue.strategy or "",
        "category": category if isinstance(category, str) else "",
        "title": " ".join(dialogue.turns[0].user.split())[:TITLE_CHARS],
        "turns": len(dialogue.turns),
        "chunk": chunk,
        "models": [model_entry(model, dialogue.id, failure_below) for model in models],
    }


def _dialogue(dialogue: Dialogue, models: list[ModelFiles], pictures: Pictures) -> dict:
    owner = next(model for model in models if dialogue.id in model.answers)
    turns = []
    for index, turn in enumerate(dialogue.turns):
        entry: dict[str, Any] = {"user": turn.user}
        if images := dialogue.images_at(index):
            entry["images"] = [pictures.add(owner.folder / image) for image in images]
        plan = {name: turn.meta[name] for name in ("goal", "risk") if isinstance(turn.meta.get(name), str | int)}
        turns.append(entry | ({"plan": plan} if plan else {}))
    answered = [
        model_turns(model.answers[dialogue.id], dialogue, model.verdicts) if dialogue.id in model.answers else None
        for model in models
    ]
    return {"turns": turns, "models": answered}


def read_model(
    title: str,
    folder: Path,
    rows: tuple[Iterable[Dialogue], Iterable[VerdictRow]],
    dialogues: pd.DataFrame,
    chosen: set[str],
) -> ModelFiles:
    """One model's answers and verdicts, of the chosen dialogues only; the rest is read past."""
    answers = {row.id: row for row in rows[0] if row.id in chosen}
    verdicts = {row.id: row for row in rows[1] if row.dialogue in chosen}
    shown = dialogues[dialogues.index.isin(chosen)]
    return ModelFiles(title, folder, answers, verdicts, dict(zip(shown.index, plain_rows(shown), strict=True)))
