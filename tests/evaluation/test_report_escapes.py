"""No text of a model, a config or a data set becomes markup: titles, note, category and picture names too."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from evaluation.multi_turn.inference import ANSWERS
from evaluation.report.build import Report
from safer_steer.dialogue import Dialogue
from safer_steer.store import read_jsonl, write_jsonl

ATTACK = "</script></title><img src=x onerror=alert(1)><a href='javascript:alert(1)'>\"'&{{7*7}}"


class Elements(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def attacked(report_config):
    """The hostile evaluation whose names are attacks too."""
    for model in report_config.models:
        path = Path(report_config.output, model, ANSWERS)
        rows = [
            row.model_copy(update={"meta": row.meta | {"category": ATTACK}, "images": [ATTACK, *row.images]})
            for row in read_jsonl(path, Dialogue)
        ]
        write_jsonl(path, rows)
    models = {
        name: model.model_copy(update={"title": f"{name}{ATTACK}"}) for name, model in report_config.models.items()
    }
    report = report_config.report.model_copy(update={"note": ATTACK})
    return report_config.model_copy(update={"models": models, "report": report})


def test_every_name_stays_text(attacked):
    report = Report(attacked)
    report.build()
    for name in ("index.html", "transcripts.html"):
        page = Elements()
        page.feed((report.folder / name).read_text(encoding="utf-8"))
        assert not [attrs for _, attrs in page.found if any(key.startswith("on") for key in attrs)]
        assert not [attrs for _, attrs in page.found if "javascript:" in str(attrs.get("href"))]
        assert {attrs["src"] for tag, attrs in page.found if tag == "img"} <= {"survival.svg", "training.svg"}
        scripts = {attrs.get("src") for tag, attrs in page.found if tag == "script"}
        assert scripts <= {"assets/browser.js", "data/index.js"}
        assert (ATTACK in page.text) == (name == "index.html")
    assert "<img" not in (report.folder / "tables.md").read_text(encoding="utf-8")
    for path in (report.folder / "data").iterdir():
        text = path.read_text(encoding="utf-8")
        assert not set("<>&") & set(text), path
        assert "alert(1)" in text
