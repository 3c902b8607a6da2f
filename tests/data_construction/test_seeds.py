"""Ingest: streaming, in order, resumable; bad rows of every kind rejected and the others untouched."""

import asyncio
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data_construction.assemble.facts import RowFacts, original_pictures
from data_construction.assemble.select import Pools, shares_with
from data_construction.plan import plan
from data_construction.seeds import MAX_DECODERS, ingest, ingest_tasks, ingested_seeds
from data_construction.tasks import make_dialogue, stage_one_tasks
from safer_steer.dialogue import Turn
from safer_steer.images import load_image
from safer_steer.store import JsonlStore

ALWAYS = {"share": 1.0, "modes": ["both"]}


def source(path, **changes) -> dict:
    return {"train": {"reader": "jsonl", "path": str(path)} | changes}


def run(config):
    with JsonlStore(config.folder / "rejects.jsonl") as rejects:
        counts = asyncio.run(ingest(ingest_tasks(config), config.folder, rejects))
        seeds = sorted(ingested_seeds(config.folder), key=lambda row: row.id)
        return seeds, counts, {row["id"]: row["reason"] for row in rejects.rows()}


def test_bad_rows_of_every_kind_leave_the_others_untouched(make_seeds, make_config, tmp_path):
    path = make_seeds("train", ["a", "b", "c"])
    clean, counts, _ = run(make_config(source(path), root=str(tmp_path / "clean")))
    assert counts.as_dict() == {"in": 3, "kept": 3, "rejected": 0}
    Image.new("RGB", (2000, 8)).save(path.parent / "thin.png")
    Image.new("RGB", (27, 257)).save(path.parent / "narrow.png")
    (path.parent / "broken.png").write_bytes(b"no picture")
    bad = [
        '{"id": "torn',
        json.dumps({"id": "lost", "image": "nowhere.png", "question": "q"}),
        json.dumps({"id": "none", "question": "q"}),
        json.dumps({"id": "out", "image": "../../secret.png", "question": "q"}),
        json.dumps({"id": "thin", "image": "thin.png", "question": "q"}),
        json.dumps({"id": "broken", "image": "broken.png", "question": "q"}),
        json.dumps({"id": "s1", "image": "0.png", "question": "again"}),
        json.dumps({"id": "narrow", "image": "narrow.png", "question": "q"}),
    ]
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*bad[:4], *lines, *bad[4:]]))
    seeds, counts, rejects = run(make_config(source(path)))
    assert rejects == {
        "ingest/train/seeds.jsonl:1": "bad record",
        "ingest/train/lost": "unusable picture",
        "ingest/train/none": "no picture",
        "ingest/train/out": "picture outside the data folder",
        "ingest/train/thin": "unusable picture",
        "ingest/train/broken": "unusable picture",
        "repeated/train/s1#2": "repeated seed id",
    }
    assert (counts.tasks, counts.kept, counts.rejected) == (11, 4, 7)
    assert [row for row in seeds if row.id != "train/narrow"] == clean
    assert min(load_image(seeds[0].seed.image, root=tmp_path / "out" / "data").size) >= 28


def test_an_id_that_looks_like_that_of_a_repeated_row_is_its_own(make_seeds, make_config):
    path = make_seeds("train", ["a"])
    rows = [json.dumps({"id": name, "image": "0.png", "question": "q"}) for name in ("x", "x", "x#2", "x#2")]
    path.write_text("\n".join(rows))
    config = make_config(source(path))
    for _ in range(2):  # the second time read from the files
        seeds, counts, rejects = run(config)
        assert [row.id for row in seeds] == ["train/x", "train/x#2"]
        assert counts.as_dict() == {"in": 4, "kept": 2, "rejected": 2, "(repeated seed id)": 2}
        assert rejects == dict.fromkeys(["repeated/train/x#2", "repeated/train/x#2#2"], "repeated seed id")


def test_ingest_resumes(make_seeds, make_config):
    config = make_config(source(make_seeds("train", [f"q{number}" for number in range(40)])))
    whole, counts, _ = run(config)
    assert (len(whole), counts.kept) == (40, 40)
    file = config.folder / "seeds.jsonl"
    complete = file.read_bytes()
    file.write_bytes(complete[: len(complete) // 2])  # as a killed process leaves it
    assert run(config)[:2] == (whole, counts)
    assert sorted(file.read_bytes().splitlines()) == sorted(complete.splitlines())
    assert run(config)[:2] == (whole, counts)
    assert not list((config.folder / "images").glob("*.tmp"))


def test_rows_stream(make_seeds, make_config, monkeypatch):
    """No more rows are read ahead than are being decoded."""
    config = make_config(source(make_seeds("train", [f"q{number}" for number in range(100)])))
    appended, ahead = 0, []
    append = JsonlStore.append

    def counting(self, row):
        nonlocal appended
        appended += self.path.name == "seeds.jsonl"
        return append(self, row)

    def tasks():
        for read, task in enumerate(ingest_tasks(config), start=1):
            ahead.append(read - appended)
            yield task

    monkeypatch.setattr(JsonlStore, "append", counting)
    with JsonlStore(config.folder / "rejects.jsonl") as rejects:
        asyncio.run(ingest(tasks(), config.folder, rejects))
    assert len(ahead) == 100
    assert max(ahead) <= MAX_DECODERS


def test_limit_split_and_where_reach_the_source(make_seeds, make_config):
    path = make_seeds("train", ["a", "b", "c"])
    seeds, counts, _ = run(make_config(source(path, limit=2, where={"id": ["s1", "s2"]}, fields={"answer": "id"})))
    assert ([row.seed.answer for row in seeds], counts.tasks) == (["s1", "s2"], 2)
    with pytest.raises(ValueError, match="has no split 'dev'"):
        make_config(source(path, reader="vlguard", data_split="dev"))
    with pytest.raises(ValueError, match="unknown name"):
        make_config(source(path, fields={"picture": "p"}))


def test_a_limit_draws_usable_rows_from_the_whole_file_by_the_seed(make_seeds, make_config):
    path = make_seeds("train", [f"q{number}" for number in range(200)])
    path.write_text("not JSON\n" * 50 + path.read_text())
    drawn, counts, rejects = run(make_config(source(path, limit=40)))
    assert (counts.as_dict(), rejects) == ({"in": 40, "kept": 40, "rejected": 0}, {})
    numbers = sorted(int(row.seed.id[1:]) for row in drawn)
    assert numbers[0] < 30
    assert numbers[-1] > 170
    assert sum(number < 100 for number in numbers) in range(10, 31)
    again = list(ingest_tasks(make_config(source(path, limit=40))))
    assert sorted(task.row.id for task in again) == sorted(row.seed.id for row in drawn)
    other = {task.row.id for task in ingest_tasks(make_config(source(path, limit=40), seed=1))}
    assert other != {row.seed.id for row in drawn}
    first = [task.row.id for task in ingest_tasks(make_config(source(path, limit=52, take="first")))]
    assert first[-2:] == ["s0", "s1"]


def test_the_plan_counts_without_reading_pictures(make_seeds, make_config):
    path = make_seeds("train", ["a", "b", "c"])
    (path.parent / "0.png").unlink()
    assert "3 seeds, " in str(plan(make_config(source(path))))
    assert "2 seeds, " in str(plan(make_config(source(path, limit=2))))
    absent = source("nobody/no-such-set", reader="spa_vl", limit=7)
    assert re.search(r"7 seeds \(its limit; .*nobody/no-such-set", str(plan(make_config(absent))))


def dialogues(config, seeds):
    turns = [Turn(user="u"), Turn(user="v")]
    return {(task.kind, task.row.id): make_dialogue(task, turns, {}) for task in stage_one_tasks(seeds, config)}


def test_red_team_rows_show_the_injected_picture_and_link_the_original(make_seeds, make_config):
    path = make_seeds("train", ["a", "b"])
    config = make_config(source(path), injector=ALWAYS | {"phrases": ["I"]})
    seeds, _, _ = run(config)
    made = dialogues(config, seeds)
    for seed in seeds:
        red_team, benign = made["red_team", seed.id], made["benign", seed.id]
        assert benign.images == [seed.seed.image]
        assert "injector" not in benign.meta
        assert red_team.images == [seed.injected.image]
        assert red_team.meta["injector"]["original"] == seed.seed.image
        assert red_team.meta["injector"]["noise_sigma"] == 0.03
        before, after = (np.asarray(load_image(p, root=config.folder)) for p in (seed.seed.image, seed.injected.image))
        assert (before != after).any()


def test_injected_pictures_stay_in_the_pool_of_their_originals(make_seeds, make_config):
    config = make_config(source(make_seeds("train", [f"q{n}" for n in range(20)])), injector=ALWAYS)
    seeds, _, _ = run(config)
    made = dialogues(config, seeds)
    pools = Pools(frozenset(), 0.5, 0)
    facts = {key: RowFacts.of(row, config.folder, 0) for key, row in made.items()}
    assert {pools.pool(facts["benign", seed.id]) for seed in seeds} == {"sft", "rl"}
    for seed in seeds:
        red_team, benign = facts["red_team", seed.id], facts["benign", seed.id]
        assert original_pictures(made["red_team", seed.id]) == benign.images
        assert pools.pool(red_team) == pools.pool(benign)
        assert Pools(frozenset(benign.images), 0.5, 0).pool(red_team) == "none"
        assert shares_with([replace(benign, seed="another")])(red_team)
