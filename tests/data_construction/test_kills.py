"""A run killed with its whole process group at random moments and resumed ends like one that nobody interrupts."""

import json

from benchmarks.kill_stage1 import COMPARED, differences, main


def test_killed_at_random_moments_and_resumed(capsys):
    assert main(["--kills", "4", "--seeds", "24", "--random-seed", "1"]) == 0
    assert "4 kills" in capsys.readouterr().out


def test_differences_are_seen(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name / "images").mkdir(parents=True)
        for file in COMPARED:
            (tmp_path / name / file).write_text(json.dumps({"id": "a"}) + "\n")
    one, other = tmp_path / "one", tmp_path / "other"
    assert differences(one, other) == []
    (other / "dialogues.jsonl").write_text('{"id": "b"}\n{"id": "b"}\n')
    (other / "images" / "x.png").write_bytes(b"x")
    assert differences(one, other) == [
        "dialogues.jsonl: 1 and 2 rows, 2 in one only",
        "dialogues.jsonl: an id is there twice",
        "images differ",
    ]
