import json
import random
from pathlib import Path

import pytest

from data_construction.config import NearDuplicates
from data_construction.quality.dedup import deduplicate
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl, write_jsonl

WORDS = ["what", "which", "part", "shows", "picture", "colour", "round", "table", "window", "person", "left", "right"]


def dialogue(row_id: str, users: list[str], picture: str = "a", kind: str = "benign", split: str = "train") -> Dialogue:
    turns = [Turn(user=user) for user in users]
    meta = {"task": f"task/{row_id}", "split": split}
    return Dialogue(id=row_id, source="s", kind=kind, strategy=None, images=[f"{picture}.png"], turns=turns, meta=meta)


def sentence(seed: int, length: int = 40) -> list[str]:
    rng = random.Random(seed)
    return [f"{rng.choice(WORDS)}{rng.randrange(40)}" for _ in range(length)]


def run(folder: Path, rows: list[Dialogue], near: NearDuplicates | None) -> tuple[list[str], list[dict], dict]:
    write_jsonl(folder / "candidates.jsonl", rows)
    counts = deduplicate(folder / "candidates.jsonl", folder / "kept.jsonl", folder / "dropped.jsonl", near)
    assert sorted(path.name for path in folder.iterdir()) == ["candidates.jsonl", "dropped.jsonl", "kept.jsonl"]
    return [row["id"] for row in read_jsonl(folder / "kept.jsonl")], list(read_jsonl(folder / "dropped.jsonl")), counts


def test_exact_duplicates_differ_in_case_and_space_only(tmp_path):
    rows = [
        dialogue("b", ["What is it?", "Why  so?"], kind="obfuscated"),
        dialogue("a", ["what is it?", "why so? "]),
        dialogue("c", ["what is it?", "why so?"], picture="other"),
        dialogue("d", ["why so?", "what is it?"]),
    ]
    kept, dropped, counts = run(tmp_path, rows, None)
    assert kept == ["a", "c", "d"]
    assert counts == {"duplicate": 1}
    assert dropped == [
        {
            "id": "b",
            "task": "task/b",
            "kind": "obfuscated",
            "reason": "duplicate",
            "of": "a",
            "of_kind": "benign",
            "similarity": 1.0,
        }
    ]


def test_near_duplicates_are_found_across_kinds_and_pictures_if_wanted(tmp_path):
    words = sentence(0)
    changed = [*words[:-1], "changed"]
    rows = [dialogue("a", [" ".join(words)]), dialogue("b", [" ".join(changed)], picture="x", kind="red_team")]
    rows.append(dialogue("c", [" ".join(sentence(1))]))
    kept, dropped, counts = run(tmp_path, rows, NearDuplicates())
    assert (kept, counts) == (["a", "c"], {"near duplicate": 1})
    assert (dropped[0]["kind"], dropped[0]["of_kind"]) == ("red_team", "benign")
    assert 0.8 <= dropped[0]["similarity"] < 1
    kept, _, counts = run(tmp_path, rows, NearDuplicates(among="same_picture"))
    assert (kept, counts) == (["a", "b", "c"], {})


def test_a_bench_row_stays_and_the_train_row_like_it_goes(tmp_path):
    text = " ".join(sentence(2))
    rows = [dialogue("a", [text]), dialogue("z", [f"{text} more"], split="bench")]
    assert run(tmp_path, rows, NearDuplicates())[0] == ["z"]


def test_the_result_does_not_depend_on_the_order_and_running_again_changes_nothing(tmp_path):
    rows, near = [], NearDuplicates(threshold=0.6)
    for number in range(60):
        words = sentence(number % 20)
        words[number % 7] = "other"
        rows.append(dialogue(f"{number:03}", [" ".join(words)], kind=("benign", "red_team")[number % 2]))
    kept, dropped, counts = run(tmp_path, rows, near)
    lines = (tmp_path / "kept.jsonl").read_bytes(), (tmp_path / "dropped.jsonl").read_bytes()
    assert len(kept) + counts["near duplicate"] + counts["duplicate"] == 60
    assert 20 <= len(kept) < 40
    random.Random(1).shuffle(rows)
    run(tmp_path, rows, near)
    assert ((tmp_path / "kept.jsonl").read_bytes(), (tmp_path / "dropped.jsonl").read_bytes()) == lines
    assert all(row["of"] in kept for row in dropped)
    stayed = [row for row in rows if row.id in kept]
    assert run(tmp_path, stayed, near)[::2] == (kept, {})


def test_a_line_that_is_no_dialogue_is_named_and_nothing_is_written(tmp_path):
    path = tmp_path / "candidates.jsonl"
    path.write_text(json.dumps(dialogue("a", ["x"]).model_dump()) + "\n" + '{"id": "b"}\n')
    with pytest.raises(UserError, match=r"candidates.jsonl:2"):
        deduplicate(path, tmp_path / "kept.jsonl", tmp_path / "dropped.jsonl", None)
    assert [item.name for item in tmp_path.iterdir()] == ["candidates.jsonl"]
