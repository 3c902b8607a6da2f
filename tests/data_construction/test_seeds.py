"""Ingest: streaming, in order, resumable; bad rows of every kind rejected and the others untouched."""

import asyncio
import json

import numpy as np
import pytest
from PIL import Image

from data_construction.assemble.select import Pools, original_pictures, without_shared
from data_construction.plan import plan
from data_construction.seeds import ingest, ingest_tasks
from data_construction.tasks import make_dialogue, stage_one_tasks
from safer_steer.dialogue import Turn
from safer_steer.images import load_image
from safer_steer.store import JsonlStore

ALWAYS = {"share": 1.0, "modes": ["both"]}


def source(path, **changes) -> dict:
    return {"train": {"reader": "jsonl", "path": str(path)} | changes}


def run(config):
    with JsonlStore(config.folder / "rejects.jsonl") as rejects:
        seeds, counts = asyncio.run(ingest(ingest_tasks(config), config.folder, rejects))
        return list(seeds), counts, {row["id"]: row["reason"] for row in rejects.rows()}


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
        "ingest/train/s1#2": "repeated seed id",
    }
    assert (counts.tasks, counts.kept, counts.rejected) == (11, 4, 7)
    assert seeds[:3] == clean
    assert min(load_image(seeds[3].seed.image, root=tmp_path / "out" / "data").size) >= 28


def test_ingest_resumes_and_keeps_the_order(make_seeds, make_config):
    path = make_seeds("train", [f"q{number}" for number in range(40)])
    config = make_config(source(path))
    whole, counts, _ = run(config)
    assert [row.id for row in whole] == [f"train/s{number}" for number in range(40)]
    seeds_file = config.folder / "seeds.jsonl"
    complete = seeds_file.read_bytes()
    seeds_file.write_bytes(complete[: len(complete) // 2])  # as a killed process leaves it
    assert run(config)[:2] == (whole, counts)
    assert seeds_file.read_bytes() == complete
    assert run(config)[:2] == (whole, counts)
    assert not list((config.folder / "images").glob("*.tmp"))


def test_rows_stream(make_seeds, make_config, monkeypatch):
    """No more rows are read ahead than are being decoded."""
    path = make_seeds("train", [f"q{number}" for number in range(100)])
    read, ahead = 0, []

    def tasks(config):
        nonlocal read
        for task in ingest_tasks(config):
            read += 1
            ahead.append(read - len(stored.ids))
            yield task

    config = make_config(source(path))
    opened = JsonlStore.__init__

    def spy(self, *args, **options):
        nonlocal stored
        opened(self, *args, **options)
        stored = self if self.path.name == "seeds.jsonl" else stored

    stored = None
    monkeypatch.setattr(JsonlStore, "__init__", spy)
    with JsonlStore(config.folder / "rejects.jsonl") as rejects:
        asyncio.run(ingest(tasks(config), config.folder, rejects))
    assert read == 100
    assert max(ahead) <= 17


def test_limit_split_and_where_reach_the_source(make_seeds, make_config):
    path = make_seeds("train", ["a", "b", "c"])
    seeds, counts, _ = run(make_config(source(path, limit=2, where={"id": ["s1", "s2"]}, fields={"answer": "id"})))
    assert ([row.seed.answer for row in seeds], counts.tasks) == (["s1", "s2"], 2)
    with pytest.raises(ValueError, match="has no split 'dev'"):
        make_config(source(path, reader="vlguard", data_split="dev"))
    with pytest.raises(ValueError, match="unknown name"):
        make_config(source(path, fields={"picture": "p"}))


def test_the_plan_counts_without_reading_pictures(make_seeds, make_config):
    path = make_seeds("train", ["a", "b", "c"])
    (path.parent / "0.png").unlink()
    assert "3 seeds, " in str(plan(make_config(source(path))))
    assert "2 seeds, " in str(plan(make_config(source(path, limit=2))))
    absent = source("nobody/no-such-set", reader="spa_vl", limit=7)
    assert "7 seeds (its limit; nobody/no-such-set is not there yet)" in str(plan(make_config(absent)))


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
    assert {pools.pool(made["benign", seed.id]) for seed in seeds} == {"sft", "rl"}
    for seed in seeds:
        red_team, benign = made["red_team", seed.id], made["benign", seed.id]
        assert original_pictures(red_team) == benign.images
        assert pools.pool(red_team) == pools.pool(benign)
        assert Pools(frozenset(benign.images), 0.5, 0).pool(red_team) == "none"
        other = benign.model_copy(update={"meta": benign.meta | {"seed": "another"}})
        assert without_shared([red_team], [other]) == []


def test_without_the_injector_nothing_changes(make_seeds, make_config):
    path = make_seeds("train", ["a"])
    config = make_config(source(path))
    seeds, _, _ = run(config)
    assert seeds[0].injected is None
    assert all("injector" not in row.meta for row in dialogues(config, seeds).values())
    benign_only = make_config(source(path), kinds=["benign"], injector=ALWAYS, root=str(config.folder / "benign"))
    assert run(benign_only)[0][0].injected is None
