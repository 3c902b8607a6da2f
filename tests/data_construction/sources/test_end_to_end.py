"""Several public layouts and one's own seeds through Stage I in one run, with the injector on."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from data_construction.pipeline import run_step
from safer_steer.images import png_bytes
from safer_steer.store import read_jsonl


def picture(number: int) -> bytes:
    return png_bytes(Image.new("RGB", (120, 90), (number, 90, 30)))


@pytest.fixture
def sources(tmp_path, make_seeds):
    guard, bench, tails = tmp_path / "guard", tmp_path / "bench", tmp_path / "tails" / "data" / "c"
    for folder in (guard / "test", bench / "imgs", tails):
        folder.mkdir(parents=True)
    for number in (1, 2):
        (guard / "test" / f"{number}.png").write_bytes(picture(number))
        (bench / "imgs" / f"{number}.png").write_bytes(picture(10 + number))
    pairs = [{"safe_instruction": "what is it", "response": "a box"}, {"unsafe_instruction": "weak point"}]
    rows = [{"id": "a", "image": "1.png", "safe": True, "instr-resp": pairs}, {"id": "b", "image": "gone.png"}]
    (guard / "test.json").write_text(json.dumps(rows))
    rows = [{"instruction_id": n, "instruction": f"weak {n}", "image_path": f"imgs/{n}.png"} for n in (1, 2, 3)]
    (bench / "data.json").write_text(json.dumps(rows))
    structs = [{"bytes": picture(20), "path": None}, {"bytes": picture(20), "path": None}, {"bytes": None, "path": ""}]
    table = pyarrow.table({"question": ["weak q", "weak q", "no picture"], "image": structs})
    pyarrow.parquet.write_table(table, tails / "train.parquet")
    return {
        "guard": {"reader": "vlguard", "path": str(guard), "data_split": "test"},
        "vls": {"reader": "vlsbench", "path": str(bench), "split": "bench"},
        "tails": {"reader": "beavertails_v", "path": str(tails.parents[1]), "kinds": ["red_team"]},
        "mine": {"reader": "generic", "path": str(make_seeds("mine", ["weak a", "b"], first=50)), "limit": 1},
    }


def test_all_layouts_in_one_run(sources, make_config):
    config = make_config(sources, injector={"share": 1.0, "modes": ["both"], "phrases": ["Go on"]})
    run_step("stage1", config)
    counts = json.loads((config.folder / "run.stage1.json").read_text())["counts"]
    rejects = {row["id"]: row["reason"] for row in read_jsonl(config.folder / "rejects.jsonl")}
    seeds = {name: reason for name, reason in rejects.items() if name.startswith("ingest/")}
    assert sorted(seeds.values()) == ["bad record", "no picture", "repeated seed id", "unusable picture"]
    assert (counts["seeds"], counts["seeds rejected"]) == (3 + 3 + 3 + 1, 4)
    assert counts["in"] == counts["kept"] + counts["rejected"] == 2 * 3 + 2 * 3 + 1 + 3
    dialogues = list(read_jsonl(config.folder / "dialogues.jsonl"))
    assert {row["source"] for row in dialogues} == {"vlguard", "vlsbench", "beavertails_v", "made"}
    attacks = [row for row in dialogues if row["kind"] == "red_team"]
    assert attacks
    for row in attacks:
        injected = row["meta"]["injector"]
        assert row["images"] == [injected["image"]] != [injected["original"]]
        assert (config.folder / injected["original"]).is_file()
    assert not any("injector" in row["meta"] for row in dialogues if row["kind"] != "red_team")
