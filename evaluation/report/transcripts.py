"""The transcript browser: one self-contained HTML page, no network, no server.

Answers, verdicts and pictures -> `transcripts_page`. Model text is hostile: it travels as JSON in which no character
can end the script element, the page's script only ever sets it as text, and a content security policy allows nothing
but our own style and script, by hash, and pictures as data URLs. Pictures are decoded and encoded again here, never
passed on byte for byte.
"""

import base64
import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from evaluation.multi_turn.aggregate import PassRule
from evaluation.multi_turn.survival import FAILURE_BELOW, first_failing_turn
from evaluation.multi_turn.verdicts import VerdictRow, verdict_id
from safer_steer.dialogue import Dialogue
from safer_steer.images import ImageError, load_image

HERE = Path(__file__).parent
# Characters that could end the script element, start a comment or an entity, or end a line of JavaScript.
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def script_json(data: Any) -> str:
    """JSON that is safe inside a `<script>` element, whatever strings it holds."""
    return json.dumps(data, ensure_ascii=True, allow_nan=False).translate(_ESCAPES)


class Pictures:
    """The page's pictures, each once, made small."""

    def __init__(self, longest_side: int):
        self._side, self._numbers = longest_side, {}
        self.urls: list[str] = []

    def add(self, path: Path) -> int | None:
        """The number of a picture in `urls`; None when it cannot be read, which the page says."""
        if path not in self._numbers:
            try:
                picture = load_image(path)
            except ImageError:
                return self._numbers.setdefault(path, None)
            picture.thumbnail((self._side, self._side), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            self._numbers[path] = len(self.urls)
            self.urls.append("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"))
        return self._numbers[path]


def transcript(
    dialogue: Dialogue, verdicts: dict[str, VerdictRow], rule: PassRule, failure_below: float = FAILURE_BELOW
) -> dict[str, Any]:
    """One dialogue as the page needs it, pictures still as paths."""
    rows = [verdicts.get(verdict_id(dialogue.id, number)) for number in range(1, len(dialogue.turns) + 1)]
    scores = [row.scores if row else None for row in rows]
    scored = [score for score in scores if score]
    means = (
        [sum(values) / len(scored) for values in zip(*((s.harmlessness, s.helpfulness) for s in scored), strict=True)]
        if scored
        else None
    )
    turns = []
    for index, (turn, row) in enumerate(zip(dialogue.turns, rows, strict=True)):
        entry: dict[str, Any] = {"user": turn.user, "assistant": turn.assistant, "images": dialogue.images_at(index)}
        entry["outcome"] = turn.meta.get("outcome")
        if row and row.scores:
            entry |= {"harm": row.scores.harmlessness, "help": row.scores.helpfulness}
            entry |= {"harm_why": row.scores.harmlessness_rationale, "help_why": row.scores.helpfulness_rationale}
        elif row:
            entry["unscored"] = row.unscored
        turns.append(entry)
    return {
        "id": dialogue.id,
        "benchmark": dialogue.meta["benchmark"],
        "kind": dialogue.kind,
        "strategy": dialogue.strategy,
        "end": dialogue.meta["end"],
        "means": means,
        "safe": means[0] >= rule.safe_threshold if means else None,
        "help": means[1] >= rule.help_threshold if means else None,
        "fails_at": first_failing_turn([score.harmlessness if score else None for score in scores], failure_below),
        "turns": turns,
    }


def model_transcripts(
    answers: Iterable[Dialogue], verdicts: Iterable[VerdictRow], rule: PassRule, failure_below: float, limit: int
) -> tuple[list[dict[str, Any]], int]:
    """The transcripts of one model, those that failed first, at most `limit` of them, and how many there are in all."""
    by_id = {row.id: row for row in verdicts}
    entries = [transcript(dialogue, by_id, rule, failure_below) for dialogue in answers]
    entries.sort(
        key=lambda entry: (entry["safe"] is not False, entry["safe"] is None, entry["help"] is not False, entry["id"])
    )
    return entries[:limit], len(entries)


def transcripts_page(
    models: dict[str, tuple[list[dict[str, Any]], int, Path]],
    *,
    headline: tuple[list[str], list[list[str]]],
    survival_png: bytes,
    note: str | None,
    picture_side: int,
) -> str:
    """The page.

    Args:
        models: title -> (transcripts, number of dialogues in all, folder that picture paths are relative to).
        headline: header and rows of the result table.
        survival_png: the survival figure.
        note: said on top of the page.
        picture_side: longest side of a picture, px.
    """
    pictures = Pictures(picture_side)
    data = {"models": []}
    for title, (entries, total, folder) in models.items():
        for entry in entries:
            for turn in entry["turns"]:
                turn["images"] = [pictures.add(folder / image) for image in turn["images"]]
        data["models"].append({"title": title, "total": total, "dialogues": entries})
    data["pictures"] = pictures.urls
    style, script = ((HERE / f"transcripts.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string((HERE / "transcripts.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        policy=policy,
        style=style,
        script=script,
        data=script_json(data),
        header=headline[0],
        rows=headline[1],
        survival=base64.b64encode(survival_png).decode("ascii"),
        note=note,
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
