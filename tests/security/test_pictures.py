"""A row names its own pictures and nothing else: paths that lead out, URLs, bombs and huge data are rejected with a
reason, in every stage, and the other rows go on.
"""

import base64
import json
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from builders import png
from data_construction.config import DataConfig
from data_construction.seeds import ingest, ingest_tasks
from evaluation.benchmarks import picture_paths
from evaluation.single_turn.prepare import prepare
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import ImageError
from safer_steer.images import ImageStore, load_image
from safer_steer.picture_files import picture_file
from safer_steer.store import JsonlStore, read_jsonl

SECRET = "secret.png"


def bomb() -> bytes:
    """A PNG of 45 kB that says it has 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 30_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder of rows with one good picture; a secret picture, a link to it and a folder of links lie around it."""
    rows = tmp_path / "rows"
    rows.mkdir()
    (tmp_path / SECRET).write_bytes(png((40, 40)))
    (rows / "good.png").write_bytes(png((40, 40)))
    (rows / "bomb.png").write_bytes(bomb())
    (rows / "script.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n(run) print\n")
    (rows / "link.png").symlink_to(tmp_path / SECRET)
    (rows / "folder").symlink_to(tmp_path, target_is_directory=True)
    return rows


def attacks(world: Path) -> dict[str, str]:
    """Name -> what a hostile row says its picture is."""
    secret = world.parent / SECRET
    return {
        "up": f"../{SECRET}",
        "far": "../../../../../../etc/passwd",
        "absolute": str(secret),
        "passwd": "/etc/passwd",
        "link": "link.png",
        "folder": f"folder/{SECRET}",
        "inside and out": f"folder/../../{SECRET}",
        "file": f"file://{secret}",
        "http": "http://127.0.0.1:9/picture.png",
        "https": "https://127.0.0.1:9/picture.png",
        "long": "x" * 5000,
        "nul": "a\0b.png",
        "missing": "missing.png",
        "bomb": "bomb.png",
        "eps": "script.eps",
        "data": "data:image/png;base64,QUJD",
    }


def test_only_pictures_below_the_folder_or_of_a_store_can_be_named(world):
    for name, value in attacks(world).items():
        with pytest.raises(ImageError) as error:
            load_image(value, root=world)
        assert len(str(error.value)) < 700, name
    assert load_image("good.png", root=world).size == (40, 40)
    assert load_image("./good.png", root=world / ".").size == (40, 40)
    stored = ImageStore(world.parent / "other").put(Image.new("RGB", (30, 30)))
    assert load_image(f"../other/{stored}", root=world).size == (30, 30)
    (world / "images").mkdir()
    (world / "images" / ("0" * 16 + ".png")).symlink_to(world.parent / SECRET)  # the form is asked of the real file
    with pytest.raises(ImageError, match="leads out"):
        picture_file(world, f"images/{'0' * 16}.png")


def test_huge_data_is_refused_before_it_is_decoded(world, monkeypatch):
    monkeypatch.setattr("safer_steer.picture_decode.MAX_FILE_BYTES", 1000)
    text = base64.b64encode(b"x" * 1100).decode()
    for source in (b"x" * 1001, f"data:image/png;base64,{text}", {"bytes": text}, {"bytes": b"x" * 1001}):
        with pytest.raises(ImageError, match="above 0 MiB"):
            load_image(source, root=world)


async def test_seeds_with_hostile_pictures_are_rejected_and_the_others_go_on(world, tmp_path):
    named = [*attacks(world).items(), ("good", "good.png")]
    rows = [{"id": name, "source": "s", "question": "What is it?", "image": value} for name, value in named]
    (world / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig.model_validate(
        {
            "root": str(tmp_path / "out"),
            "steps": ["stage1"],
            "kinds": ["benign"],
            "sources": {"train": {"reader": "jsonl", "path": str(world / "seeds.jsonl")}},
            "roles": {"generator": {"model": "m", "base_url": "http://127.0.0.1:9/v1"}},
        }
    )
    folder = tmp_path / "out" / "data"
    with JsonlStore(folder / "rejects.jsonl") as rejects:
        counts = await ingest(ingest_tasks(config), folder, rejects)
        reasons = {row["id"]: row["reason"] for row in rejects.rows()}
    assert (counts.tasks, counts.kept, counts.rejected) == (len(rows), 1, len(rows) - 1)
    for name in ("up", "absolute", "passwd", "link", "folder"):
        assert reasons[f"ingest/train/{name}"] == "picture outside the data folder", name
    assert set(reasons.values()) <= {"picture outside the data folder", "unusable picture", "bad seed"}
    assert len(list((folder / "images").iterdir())) == 1


def dialogue(name: str, image: str) -> Dialogue:
    turn = Turn(user="What is it?", assistant="A square.")
    return Dialogue(id=name, source="s", kind="benign", strategy=None, images=[image], turns=[turn])


def test_hostile_dialogues_name_no_picture_in_the_evaluation(world):
    for name in ("up", "far", "absolute", "passwd", "link", "folder", "inside and out", "file", "http", "https", "nul"):
        with pytest.raises(ImageError):
            picture_paths(dialogue(name, attacks(world)[name]), world)
    assert picture_paths(dialogue("good", "good.png"), world) == [[world / "good.png"]]


def test_single_turn_benchmarks_of_own_seeds_keep_their_pictures_in_reach(world, tmp_path):
    """Pictures beside a user's seeds are copied; those of a picture store are named where they are."""
    stored = ImageStore(world).put(Image.new("RGB", (50, 50)))
    rows = [("plain", "good.png"), ("stored", stored), ("hostile", f"../{SECRET}")]
    seeds = [{"id": n, "source": "vlguard", "image": image, "question": f"{n}?", "answer": None} for n, image in rows]
    (world / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in seeds))
    output = tmp_path / "single_turn"
    assert prepare([world / "seeds.jsonl"], output).rows == {"vlguard": 3}
    found = {row.meta["seed"]: row for row in read_jsonl(output / "vlguard.jsonl", Dialogue)}
    assert found["plain"].images[0].startswith("images/")
    assert found["stored"].images == [os.path.relpath(world / stored, output)]
    for name, size in (("plain", (40, 40)), ("stored", (50, 50))):
        assert load_image(picture_paths(found[name], output)[0][0]).size == size
    with pytest.raises(ImageError, match="leads out"):
        picture_paths(found["hostile"], output)
