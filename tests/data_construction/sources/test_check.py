"""The command line of the sources, and that the list of them is what the docs say."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from data_construction.sources.__main__ import main


@pytest.fixture
def seeds(tmp_path):
    for name, size in (("a", (40, 30)), ("b", (100, 50)), ("c", (10, 10))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    lines = [{"id": n, "image": f"{n}.png", "question": f"what about {n}?", "answer": "yes"} for n in "abc"]
    lines += [{"id": "a", "image": "a.png", "question": "again"}, {"id": "d", "image": "d.png", "question": "q"}]
    lines += [{"id": "e", "question": "q"}, {"id": "f", "image": "a.png"}]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "{torn\n")
    return tmp_path / "s.jsonl"


def test_check_counts_rejects_by_reason_sizes_and_samples(seeds, capsys):
    assert main(["check", "generic", f"path={seeds}"]) == 0
    out = capsys.readouterr().out
    assert "rows: 8 = 3 usable + 5 rejected; 3 answered" in out
    for reason in ("repeated seed id", "unusable picture", "no picture", "no question", "bad record"):
        assert f"rejected, {reason}: 1" in out
    assert f"{seeds}:line 8: not JSON" in out
    assert "10x10 smallest, 40x30 median, 100x50 largest; 3 sizes" in out
    assert "resized to the model's limits: 1" in out
    assert out.count("sample ") == 3
    assert f"read {seeds}: JSONL, UTF-8, 8 rows\n" in out
    assert "question: what about a?" in out


def test_check_takes_fields_where_and_limit(seeds, capsys):
    assert main(["check", "generic", f"path={seeds}", "fields.question=answer", "where.id=[a,b]", "limit=2"]) == 0
    assert "rows: 2 = 2 usable + 0 rejected" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generic"], "wants path=PATH"),
        (["nothing", "path=x"], "choose from: jailbreakv_28k"),
        (["generic", "path=x", "split=a"], "allowed: path, data_split"),
        (["generic", "path=x", "limit=0"], "from 1 on"),
        (["generic", "path=nowhere.jsonl"], "seeds not found"),
        (["vlguard", "path=tests", "data_split=dev"], "has no split 'dev'"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert main(["check", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_ascii_terminal_ends_no_run(seeds):
    seeds.write_text(
        json.dumps({"id": "a", "image": "a.png", "question": "Où est l'élève \U0001f600?"}, ensure_ascii=False)
    )
    command = [sys.executable, "-m", "data_construction.sources", "check", "generic", f"path={seeds}"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert r"question: O\xf9 est l'\xe9l\xe8ve \U0001f600?" in done.stdout
