"""Seeds without a picture, where a source takes them: through Stages I and II and the assembly, in words alone."""

import json

import pyarrow.parquet as pq
import pytest

from data_construction.sources.__main__ import main as sources
from data_steps import run_step
from miniature.student import build_processor
from safer_steer.config import load_config
from safer_steer.dialogue import Dialogue
from safer_steer.store import read_jsonl
from safer_steer_verl.settings import DataConfig
from training.grpo.prepare import PromptBuilder
from training.grpo.prepare import prepare as prepare_grpo
from training.sft.config import SftConfig
from training.sft.data import prepare as prepare_sft

NOTE = "There is no picture here"
STEPS = ("stage1", "stage2", "history", "assemble")
ASSEMBLE = {
    "rl_share": 0.5,
    "sft": {"mix": {"benign": 1, "red_team": 1}},
    "rl": {"mix": {"benign": 1, "red_team": 1}, "history_dependent": {}},
    "bench": {"mix": {"benign": 1}},
}


@pytest.fixture
def mixed(make_seeds):
    """Files of seeds of which every second one has no picture; the bench asks one question of the training's."""

    def make(name: str, questions: list[str]) -> str:
        path = make_seeds(name, questions)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows[1::2]:
            row["image"] = None
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return make


def sent_pictures(body: dict) -> int:
    contents = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    return sum(part["type"] == "image_url" for parts in contents for part in parts)


def test_text_only_seeds_go_through_every_step_and_into_both_trainers(mixed, make_config, double):
    train = mixed("train", [f"weak {name}" for name in "abcdefghijklmnop"])
    bench = mixed("bench", ["weak q", "weak  B"])  # as the training's, but for case and blanks
    optional = {"reader": "generic", "pictures": "optional"}
    config = make_config(
        {"train": optional | {"path": train}, "bench": optional | {"path": bench, "split": "bench"}},
        kinds=["benign", "red_team"],
        assemble=ASSEMBLE,
        injector={"share": 1.0},
        steps=[*STEPS],
    )
    for step in STEPS:
        run_step(step, config)
    rows = list(read_jsonl(config.folder / "dialogues.jsonl", Dialogue))
    assert len(rows) >= 2 * 17, "those of train/s1 may repeat the bench's"
    bare = {row.meta["seed"] for row in rows if not row.images}
    assert bare | {"train/s1"} == {f"train/s{n}" for n in range(1, 16, 2)} | {"bench/s1"}
    for name, body in double.requests:
        text = json.dumps(body)
        if name in ("target", "blue"):
            continue
        told, judged_alone = NOTE in text, name in ("refusal", "request_risk")
        assert told == (sent_pictures(body) == 0 and not judged_alone), name
    assert len(double.called("forensics")) == 9, "there is nothing to look at without a picture"

    data = config.folder
    sft, rl = (list(read_jsonl(data / f"steer_{name}.jsonl", Dialogue)) for name in ("sft", "rl"))
    for split in (sft, rl):
        assert {bool(row.images) for row in split} == {True, False}
    assert not {row.meta["seed"] for row in sft} & {row.meta["seed"] for row in rl}
    assert "train/s1" not in {row.meta["seed"] for row in [*sft, *rl]}, "the bench asks the same"
    assert any(not row.images for row in sft if row.kind == "red_team")

    processor = build_processor()
    trained = load_config(SftConfig, "configs/sft/miniature.yaml", [f"data={data}/steer_sft.jsonl", f"root={data}"])
    assert len(prepare_sft(trained, processor).rows) == len(sft)
    source = str(data / "steer_rl.jsonl")
    for pictures, kept in (("optional", len(rl)), ("required", sum(bool(row.images) for row in rl))):
        builder = PromptBuilder(processor, DataConfig(source=source, max_pixels=3136, pictures=pictures), 512)
        assert prepare_grpo(builder, [source], data / pictures)["kept"] == kept
    table = pq.read_table(data / "optional" / "train.parquet").to_pylist()
    assert all("<image>" not in row["prompt"][0]["content"] for row in table if not row["images"])


def test_a_picture_is_required_unless_the_source_says_otherwise(mixed, make_config, capsys):
    path = mixed("train", ["weak a", "weak b", "c", "d"])
    config = make_config({"train": {"reader": "generic", "path": path}}, kinds=["benign"])
    run_step("stage1", config)
    rejects = list(read_jsonl(config.folder / "rejects.jsonl"))
    assert [(row["reason"], "sources.train.pictures=optional" in row["detail"]) for row in rejects] == [
        ("no picture", True)
    ] * 2
    assert sources(["check", "generic", f"path={path}"]) == 0
    assert "rows: 4 = 2 usable + 2 rejected" in capsys.readouterr().out
    assert sources(["check", "generic", f"path={path}", "pictures=optional"]) == 0
    said = capsys.readouterr().out
    assert "rows: 4 = 4 usable + 0 rejected" in said
    assert "without a picture: 2" in said
    assert sources(["check", "generic", f"path={path}", "pictures=no"]) == 2
