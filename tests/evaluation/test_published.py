"""A finished run for others to see: its evaluation as inspect's logs, the cards of model and data, of real records."""

import base64
import io
import json
import math
import shutil
from zipfile import ZipFile

import pytest
from huggingface_hub import DatasetCard, ModelCard
from PIL import Image

from data_construction.stats.counts import counts, row_table
from evaluation.multi_turn.inference import ANSWERS
from evaluation.report.build import DIALOGUES
from evaluation.run import main as evaluate
from exports.config import ExportConfig
from exports.run import main as export
from safer_steer.config import load_config
from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.runs import Run
from safer_steer.store import read_jsonl, write_jsonl
from safer_steer.weights import weights_fingerprint
from training.sft.config import SftConfig

SFT = ["model=Qwen/Qwen2.5-VL-3B-Instruct", "seed=17", "training.epochs=3"]


@pytest.fixture
def published(tmp_path, bench, serve):
    """Exports a finished evaluation of one model, two samples each; the third dialogue has no score, and no answer at
    turn 2.
    """

    def behave(body):
        text = json.dumps(body["messages"])
        if body.get("response_format"):
            if "d2 turn" in text:
                return "no verdict"
            return json.dumps({"harmlessness": 1 if "d1 turn" in text else 3, "helpfulness": 3})
        if "d0 turn 3" in text:
            return {"content": "an answer, cut", "finish_reason": "length"}
        return {"content": "", "finish_reason": "content_filter"} if "d2 turn 2" in text else "an answer"

    output = tmp_path / "evaluation"
    with serve(behave) as server:
        config = server.config(output / "mine", benchmarks=[str(bench)], max_unscored_rate=1.0, repeats=2)
        evaluate(config)

    def write(*overrides):
        values = [f"root={tmp_path}", f"evaluation={output}", "evaluated=mine", "data=null", "training=[]", *overrides]
        export(load_config(ExportConfig, "configs/exports/publish.yaml", values))
        return tmp_path / "published"

    return write


def test_an_evaluation_becomes_a_log_of_inspect(published, bench, tmp_path):
    folder = published("formats=[inspect]")
    with ZipFile(folder / "inspect" / "mine.eval") as log:
        header, short = (json.loads(log.read(f"{name}.json")) for name in ("header", "summaries"))
        samples = {
            row.id: json.loads(log.read(f"samples/{row.id}_epoch_1.json")) for row in read_jsonl(bench, Dialogue)
        }
    assert [(item["id"], item["epoch"]) for item in short] == [(key, n) for key in sorted(samples) for n in (1, 2)]
    assert header["eval"]["dataset"]["sample_ids"] == sorted(samples)
    assert [samples[key]["output"]["choices"][0]["stop_reason"] for key in ("d0", "d1")] == ["max_tokens", "stop"]
    first = samples["d0"]["messages"]
    assert [message["role"] for message in first] == ["user", "assistant"] * 3
    shown = [
        [part["image"] for part in m["content"] if part["type"] == "image"]
        for m in first
        if m["role"] == "user" and isinstance(m["content"], list)
    ]
    pictures = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for (url,) in shown]
    assert [picture.getpixel((5, 5)) for picture in pictures] == [(255, 0, 0), (0, 0, 255)]
    assert samples["d1"]["scores"]["safe"]["value"] is False
    assert samples["d1"]["scores"]["harmlessness"] == {
        "value": 1.0,
        "explanation": "Turn 1: 1\n\nTurn 2: 1\n\nTurn 3: 1",
    }
    lost = samples["d2"]
    assert [message["role"] for message in lost["messages"]] == ["user", "assistant", "user"], (
        "the third turn was never asked"
    )
    assert all(math.isnan(score["value"]) for score in lost["scores"].values())
    assert "Turn 2: unscored (answer filtered)" in lost["scores"]["harmlessness"]["explanation"]
    safe = header["results"]["scores"][0]
    numbers = json.loads((tmp_path / "evaluation" / "summary.json").read_text())["models"]["mine"]
    assert (safe["scored_samples"], safe["unscored_samples"]) == (10, 2)
    assert safe["metrics"]["rate"]["value"] == pytest.approx(numbers["safe"] / 100) == pytest.approx(0.8)
    assert safe["metrics"]["95 % from"]["value"] == pytest.approx(numbers["safe_ci"][0] / 100)


def test_the_rates_of_a_mixed_evaluation_and_their_counts_are_of_the_same_dialogues(published, tmp_path):
    """Two of the six dialogues become single-turn ones, with two samples each."""
    for name in (ANSWERS, DIALOGUES):
        path = tmp_path / "evaluation" / "mine" / name
        rows = list(read_jsonl(path))
        for row in rows[:4]:
            row.get("meta", row)["benchmark"] = "vlguard"
        write_jsonl(path, rows)
    with ZipFile(published("formats=[inspect]") / "inspect" / "mine.eval") as log:
        header = json.loads(log.read("header.json"))
    safe = header["results"]["scores"][0]
    assert (safe["scored_samples"], safe["unscored_samples"]) == (6, 2)
    assert header["results"]["total_samples"] == 12
    assert header["eval"]["metadata"]["rates are of"] == "multi-turn dialogues"


@pytest.mark.parametrize("damage", ["{", '{"models": {}}', "without repeats"])
def test_a_summary_that_lacks_something_is_named_with_what_to_do(published, tmp_path, damage):
    path = tmp_path / "evaluation" / "summary.json"
    whole = json.loads(path.read_text())
    del whole["models"]["mine"]["repeats"]
    path.write_text(json.dumps(whole) if damage == "without repeats" else damage)
    lacking = "models.mine.repeats" if damage == "without repeats" else "judged_by"
    with pytest.raises(UserError, match=rf"summary.json lacks .*{lacking}.* run that evaluation's command again"):
        published("formats=[inspect]")


def test_the_model_card_says_what_the_records_say_and_what_they_do_not(published, tmp_path):
    config = load_config(SftConfig, "configs/sft/qwen2_5_vl_3b.yaml", [f"output={tmp_path}/sft", *SFT])
    with Run.open(tmp_path / "sft", config, stage="sft") as run:
        with pytest.raises(UserError, match="no record of a finished run"):
            published("formats=[model_card]", f"training=[{tmp_path}/sft]")
        run.finish({"rows": 6})
    with pytest.raises(UserError, match=r"evaluated other: .* has mine"):
        published("formats=[model_card]", f"training=[{tmp_path}/sft]", "evaluated=other")
    card = ModelCard.load(published("formats=[model_card]", f"training=[{tmp_path}/sft]") / "model_card" / "README.md")
    assert card.data.base_model == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert card.data.license is None
    (safe, _, _) = card.data.eval_results
    assert (safe.dataset_name, safe.metric_value) == ("STEER-Beaver", 80.0)
    assert "95 %: 28.4 to 99.5" in safe.metric_name, "4 of 5, Clopper-Pearson"
    assert "| seed | 17 |" in card.text
    assert "| epochs | 3 |" in card.text
    missing = card.text.partition("## Not recorded")[2]
    assert "- licence" in missing
    assert "- sft: rows (hash)" in missing
    assert "- whether the numbers are of these weights" in missing
    assert str(tmp_path) not in card.text


def test_the_dataset_card_names_sources_models_and_seeds(published, tmp_path, bench):
    data = tmp_path / "data"
    rows = list(read_jsonl(bench, Dialogue))
    write_jsonl(data / "steer_sft.jsonl", rows)
    roles = {"generator": {"model": "some-model"}}
    sources = {"spa": {"path": "sqrti/SPA-VL", "split": "train", "limit": 5}}
    facts = {"seed": 23, "roles": roles, "sources": sources, "quality": {"languages": ["en"]}}
    with Run.open(data, facts, stage="stage 1", file="run.stage1.json") as run:
        run.finish({"kept": 6})
    stats = {"splits": {"sft": counts(row_table(rows))}, "keep_rule": {}, "left_out": {}}
    (data / "stats.json").write_text(json.dumps(stats))
    folder = published("formats=[dataset_card]", f"data={data}/steer_sft.jsonl", "license=cc-by-4.0")
    card = DatasetCard.load(folder / "dataset_card" / "README.md")
    assert (card.data.license, card.data.language) == ("cc-by-4.0", ["en"])
    assert all((data / item["data_files"]).is_file() for item in card.data.configs)
    assert "| stage1 | 23 | generator: some-model |" in card.text
    assert "| STEER-SFT | 6 | 3 to 3, mean 3.0 | 2 benign, 2 obfuscated, 2 red-team |" in card.text
    assert "| spa | sqrti/SPA-VL | not recorded | train | 5 |" in card.text
    assert "- record of stage2" in card.text.partition("## Not recorded")[2]


def test_a_model_card_is_of_one_chain_of_runs_and_of_the_rows_they_learned_from(published, tmp_path, bench):
    def record(name, **inputs):
        facts = {"model": f"{tmp_path}/base_model", "seed": 1}
        with Run.open(tmp_path / name, facts, stage=name, inputs=inputs) as run:
            run.finish({})

    def card(*overrides):
        values = ["evaluation=null", "evaluated=null", f"data={bench}", *overrides]
        training = f"training=[{tmp_path}/sft,{tmp_path}/grpo]"
        return ModelCard.load(published("formats=[model_card]", training, *values) / "model_card" / "README.md")

    checkpoint = tmp_path / "sft" / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    record("sft", data=bench)
    record("grpo", data=bench, model=checkpoint)
    made = card()
    assert made.data.base_model is None, "a folder of this machine is no model of the hub"
    assert "It started from" in made.text
    assert str(tmp_path) not in made.text
    missing = made.text.partition("## Not recorded")[2]
    assert "learned from" not in missing
    assert "the run before" not in missing
    assert "over-refusal above" not in made.text, "nothing was evaluated"
    shutil.rmtree(tmp_path / "published")
    (checkpoint / "model.safetensors").write_bytes(b"others")
    with pytest.raises(UserError, match=r"grpo began with other weights than .*sft/checkpoint"):
        card()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "steer_sft.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"none of its files is what .*sft learned from"):
        card(f"data={tmp_path}/other/steer_sft.jsonl")


def test_two_runs_of_one_stage_are_both_on_the_card(published, tmp_path):
    for name, seed in (("first", 1), ("second", 2)):
        with Run.open(tmp_path / name, {"seed": seed}, stage="sft") as run:
            run.finish({})
    training = f"training=[{tmp_path}/first,{tmp_path}/second]"
    card = ModelCard.load(published("formats=[model_card]", training) / "model_card" / "README.md")
    first, second = card.text.partition("### Supervised fine-tuning 1")[2].split("### Supervised fine-tuning 2")
    assert "| seed | 1 |" in first
    assert "| seed | 2 |" in second
    assert "2 training runs, one seed each" in card.text
    assert "- sft 2: rows (hash)" in card.text


def test_names_on_a_card_are_text_on_one_line(published, tmp_path):
    with Run.open(tmp_path / "sft", {"model": "some/a|b"}, stage="sft") as run:
        run.finish({})
    record = json.loads((tmp_path / "evaluation" / "summary.json").read_text())
    title = 'My "model" | <b>one</b>\n---\n# heading'
    record["models"]["mine"]["title"] = title
    (tmp_path / "evaluation" / "summary.json").write_text(json.dumps(record))
    path = published("formats=[model_card]", f"training=[{tmp_path}/sft]") / "model_card" / "README.md"
    card = ModelCard.load(path)
    assert card.data.model_name == title
    body = path.read_text().rpartition("\n---\n")[2]
    assert body.strip().startswith('# My "model" \\| &lt;b>one&lt;/b> --- # heading\n')
    assert "some/a\\|b |" in body


def test_a_model_card_takes_no_numbers_of_other_weights(published, tmp_path):
    with Run.open(tmp_path / "sft", {}, stage="sft") as run:
        run.finish({})
    checkpoint = tmp_path / "sft" / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    infer = tmp_path / "evaluation" / "mine" / "infer.json"
    record = json.loads(infer.read_text())

    def served(weights):
        record["facts"]["config"]["weights"] = {"mine": weights}
        infer.write_text(json.dumps(record))
        return published("formats=[model_card]", f"training=[{tmp_path}/sft]") / "model_card" / "README.md"

    with pytest.raises(UserError, match="had other weights"):
        served("0" * 16)
    found = weights_fingerprint(checkpoint)
    assert f"both have the fingerprint {found}" in served(found).read_text()
