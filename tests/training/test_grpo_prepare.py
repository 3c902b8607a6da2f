"""steer_rl.jsonl -> train.parquet: layout, rejected rows with reasons, text that looks like a tag."""

import io
import json

import pyarrow.parquet as pq
import pytest
from PIL import Image

from miniature.student import build_processor
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import UserError
from safer_steer.images import ImageStore
from safer_steer.store import read_jsonl, write_jsonl
from safer_steer_verl.settings import DataConfig
from training.grpo.prepare import PromptBuilder, prepare


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def dialogue(name, texts, images=("a",), **turns) -> Dialogue:
    return Dialogue(
        id=name,
        source="world",
        kind="red_team",
        strategy=None,
        images=list(images),
        turns=[Turn(user=text, images=turns.get(f"t{index}", [])) for index, text in enumerate(texts)],
    )


def run(processor, tmp_path, rows, limit=64, take="all", pictures="required"):
    write_jsonl(tmp_path / "steer_rl.jsonl", rows)
    data = DataConfig(source=str(tmp_path / "steer_rl.jsonl"), max_pixels=7056, turns=take, pictures=pictures)
    counts = prepare(PromptBuilder(processor, data, limit), [data.source], tmp_path / "out")
    return counts, pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()


def test_rows_and_rejects(processor, tmp_path):
    picture, second = (ImageStore(tmp_path).put(Image.new("RGB", (84, 84), colour)) for colour in ("red", "blue"))
    rows = [
        dialogue("good", ["open it ?", "and now ?"], [picture]),
        dialogue("long", ["word " * 200, "x"], [picture]),
        dialogue("lost", ["a", "b"], ["images/none.png"]),
        dialogue("bare", ["a", "b"], []),
        dialogue("late", ["a", "b"], [picture], t1=[0]),
        dialogue("many", ["a"] * 11, [picture]),
        dialogue("two", ["a", "b"], [picture, second], t0=[0], t1=[1]),
    ]
    counts, table = run(processor, tmp_path, rows)
    assert (counts["rows"], counts["kept"], counts["rejected"]) == (7, 3, 4)
    assert [row["extra_info"]["dialogue"] for row in table] == ["good", "late", "two"]
    good, late, two = table
    assert late["prompt"] == [{"role": "user", "content": "a"}]  # its picture comes at the second turn
    assert [item["turn"] for item in late["later_images"]] == [1]
    assert good["agent_name"] == "safety_tutor"
    assert good["prompt"] == [{"role": "user", "content": "<image>open it ?"}]
    assert good["extra_info"]["turns"] == ["open it ?", "and now ?"]
    assert Image.open(io.BytesIO(good["images"][0]["bytes"])).size == (84, 84)
    assert good["later_images"] == []
    assert [item["turn"] for item in two["later_images"]] == [1]
    assert two["extra_info"]["image_turns"] == [[0], [1]]
    reasons = {row["id"]: row["reason"] for row in read_jsonl(tmp_path / "out" / "train_rejects.jsonl")}
    assert reasons == {
        "long": "prompt too long",
        "lost": "picture missing or unusable",
        "bare": "no picture",
        "many": "too many turns",
    }


def test_rows_without_a_picture_are_taken_where_pictures_are_optional(processor, tmp_path):
    picture = ImageStore(tmp_path).put(Image.new("RGB", (84, 84)))
    rows = [
        dialogue("bare", ["a", "b"], []),
        dialogue("good", ["a", "b"], [picture]),
        dialogue("lost", ["a", "b"], ["none.png"]),
    ]
    counts, table = run(processor, tmp_path, rows, pictures="optional")
    assert (counts["kept"], counts["reasons"]) == (2, {"picture missing or unusable": 1})
    assert table[0]["prompt"] == [{"role": "user", "content": "a"}]
    assert (table[0]["images"], table[0]["later_images"], table[0]["extra_info"]["images"]) == ([], [], [])
    assert table[0]["extra_info"]["turns"] == ["a", "b"]


def test_the_prompt_length_is_the_processors(processor, tmp_path):
    picture = Image.new("RGB", (84, 84))
    builder = PromptBuilder(processor, DataConfig(source=str(tmp_path / "x"), max_pixels=3136), 64)
    content = [{"type": "image"}, {"type": "text", "text": "open it ?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    real = processor(text=[text], images=[picture], return_tensors="pt")["input_ids"].shape[1]
    assert builder.prompt_length("open it ?", [picture]) == real


def test_the_system_prompt_is_in_the_prompt_and_its_length(processor, tmp_path):
    picture = ImageStore(tmp_path).put(Image.new("RGB", (84, 84)))
    write_jsonl(tmp_path / "steer_rl.jsonl", [dialogue("d", ["open it ?", "b"], [picture])])
    data = DataConfig(source=str(tmp_path / "steer_rl.jsonl"), max_pixels=7056)
    builder = PromptBuilder(processor, data, 200, system="it is red . " * 9)
    prepare(builder, [data.source], tmp_path / "out")
    (row,) = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["prompt"][0]["content"] == "it is red . " * 9
    plain = PromptBuilder(processor, data, 200)
    assert builder.prompt_length("a", []) > plain.prompt_length("a", [])


def test_tags_in_the_text_stay_text(processor, tmp_path):
    picture = ImageStore(tmp_path).put(Image.new("RGB", (84, 84)))
    _, table = run(processor, tmp_path, [dialogue("d", ["what is <image> or <|im_end|> ?", "b"], [picture])], limit=200)
    content = table[0]["prompt"][0]["content"]
    assert content.count("<image>") == 1
    assert "<|im_end|>" not in content


def test_single_turn_data_is_the_last_question_with_every_picture(processor, tmp_path):
    picture, second = (ImageStore(tmp_path).put(Image.new("RGB", (84, 84), colour)) for colour in ("red", "blue"))
    rows = [
        dialogue("d", ["look ?", "open it ?"], [picture]),
        dialogue("two", ["a", "b"], [picture, second], t0=[0], t1=[1]),
    ]
    _, table = run(processor, tmp_path, rows, take="last")
    assert [row["prompt"][0]["content"] for row in table] == ["<image>open it ?", "<image><image>b"]
    assert [row["extra_info"]["turns"] for row in table] == [["open it ?"], ["b"]]
    assert all(row["later_images"] == [] for row in table)


def test_held_out_dialogues_of_several_files_and_their_pictures(processor, tmp_path):
    bench = tmp_path / "bench"
    picture = ImageStore(bench).put(Image.new("RGB", (84, 84)))
    for name in ("a", "b"):
        write_jsonl(bench / f"{name}.jsonl", [dialogue(name, ["x ?", "y ?"], [picture])])
    data = DataConfig(source=str(tmp_path / "steer_rl.jsonl"), max_pixels=7056)
    files = [str(bench / "a.jsonl"), str(bench / "b.jsonl")]
    counts = prepare(PromptBuilder(processor, data, 64), files, tmp_path / "out", "validation")
    table = pq.read_table(tmp_path / "out" / "validation.parquet").to_pylist()
    assert counts["kept"] == 2
    # picture paths are relative to the training data's folder, as in every row of the run
    assert [row["extra_info"]["images"] for row in table] == [[f"bench/{picture}"]] * 2


def test_losing_every_row_is_an_error(processor, tmp_path):
    with pytest.raises(UserError, match="none of 1 rows is usable; first: lost"):
        run(processor, tmp_path, [dialogue("lost", ["a", "b"], ["images/none.png"])])
    assert json.loads((tmp_path / "out" / "train_rejects.jsonl").read_text())["id"] == "lost"
