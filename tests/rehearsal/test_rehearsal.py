"""The rehearsal's parts without an engine: whose key an override is, rows, derived configs, table, stand-in."""

import json

import pytest
from fastapi.testclient import TestClient

from evaluation.config import EvaluationConfig
from rehearsal import derive, rows, stand_in
from rehearsal.forecast import forecast
from rehearsal.plays import Play, _grpo_numbers
from rehearsal.settings import split
from rehearsal.subjects import kind_of, subjects
from safer_steer.config import load_config
from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.llm.structured import response_format
from safer_steer.rubric import JudgeScores
from safer_steer.store import read_jsonl
from safer_steer_verl.interactions.safety_tutor import TutorReply
from training.grpo.config import load_config as load_grpo
from training.sft.config import SftConfig

TUTOR = "safer_steer.tutor.base_url=http://10.0.0.2:8000/v1"
CONFIGS = {
    "sft": "configs/sft/qwen2_5_vl_3b.yaml",
    "grpo": "configs/grpo/qwen2_5_vl_3b.yaml",
    "evaluation": "configs/evaluation/steer_bench.yaml",
    "data_construction": "configs/data_construction/default.yaml",
}


@pytest.fixture(scope="module")
def stages():
    own = ["device=cpu", "layers=2"]
    configs, settings, overrides = split([*CONFIGS.values(), *own, "training.epochs=3", "seed=7", TUTOR])
    found = subjects(configs, settings, overrides)
    return settings, {stage.kind: stage for stage in found}


def test_stages_are_recognised_and_keys_go_to_those_that_know_them(stages, tmp_path):
    _, found = stages
    assert list(found) == list(CONFIGS)
    assert [kind_of(path) for path in CONFIGS.values()] == list(CONFIGS)
    assert (found["sft"].config.training.epochs, found["sft"].config.seed) == (3, 7)
    assert found["data_construction"].config.seed == 7
    assert found["grpo"].replaced
    assert found["sft"].needs.gpus == 8, "the real run's needs stay"
    (tmp_path / "other.yaml").write_text("a: 1\n")
    with pytest.raises(UserError, match="of no stage"):
        kind_of(str(tmp_path / "other.yaml"))


def test_derived_configs_are_valid_and_small(stages, tmp_path):
    settings, found = stages
    model, data = tmp_path / "model", tmp_path / "rows.jsonl"
    sft = load_config(SftConfig, derive.sft(found["sft"], settings, model, data, tmp_path))
    assert (sft.training.processes, sft.training.epochs, sft.max_length, sft.device) == (1, 1, 1024, "cpu")
    evaluation = load_config(
        EvaluationConfig, derive.evaluation(found["evaluation"], settings, model, data, tmp_path, True)
    )
    assert list(evaluation.models) == ["rehearsed"]
    assert (sft.training.precision, evaluation.serving.arguments[-2:]) == ("fp32", ["--dtype", "float32"])
    assert evaluation.judge.model == stand_in.MODEL
    config = load_grpo(derive.grpo(found["grpo"], settings, model, data, tmp_path, 151936 * 2048, True)).config
    verl = config.verl
    assert verl["trainer"]["total_training_steps"] == derive.STEPS
    assert verl["data"]["max_prompt_length"] + verl["data"]["max_response_length"] == 1024
    bucket = verl["actor_rollout_ref"]["rollout"]["checkpoint_engine"]["update_weights_bucket_megabytes"]
    assert bucket * 2**20 >= 151936 * 2048 * 4, "one tensor fits into one bucket"


def test_a_gpu_config_keeps_what_decides_over_memory(tmp_path):
    configs, settings, overrides = split([CONFIGS["grpo"], TUTOR])
    stage = subjects(configs, settings, overrides)[0]
    config = load_grpo(derive.grpo(stage, settings, tmp_path, tmp_path, tmp_path, 1, False)).config
    real, refs = stage.config.verl, config.verl["actor_rollout_ref"]
    assert config.verl["data"]["max_response_length"] == real["data"]["max_response_length"]
    for part, key in (("actor", "ppo_micro_batch_size_per_gpu"), ("rollout", "log_prob_micro_batch_size_per_gpu")):
        assert refs[part][key] == real["actor_rollout_ref"][part][key]
    assert config.verl["data"]["train_batch_size"] * refs["rollout"]["n"] < 64 * 5
    assert config.safer_steer.tutor == stage.config.safer_steer.tutor


def test_longest_rows_with_their_pictures(tmp_path):
    made = [rows.of_the_miniature(tmp_path / "data")]
    turns = made[0].dialogue.turns
    texts = [made[0].dialogue.model_copy(update={"id": f"d{n}", "turns": turns[:n]}) for n in (1, 4, 2)]
    source = rows.write([rows.Row(item, made[0].folder) for item in texts], tmp_path / "data" / "all.jsonl", 3)
    first, longest, *others = source.read_bytes().splitlines()
    source.write_bytes(b"\n".join([first, b"torn", *others, longest]))  # the last line has no end
    chosen = rows.longest([source, tmp_path / "absent.jsonl"], 2)
    assert [len(row.dialogue.turns) for row in chosen] == [4, 2]
    written = rows.write(chosen, tmp_path / "out" / "rows.jsonl", 5, not_nfc=True)
    copies = list(read_jsonl(written, Dialogue))
    assert len({row.id for row in copies}) == 5
    assert rows.NOT_NFC in copies[0].turns[0].user
    assert rows.NOT_NFC not in copies[1].turns[0].user
    assert all((written.parent / picture).is_file() for row in copies for picture in row.images)


@pytest.mark.parametrize("tags", [[], ["thinking", "answer"]])
def test_a_generated_row_fills_the_length_and_no_more(tags, tmp_path):
    from rehearsal.weights import stand_in_processor
    from training.answers import answered_turns, tagged_parts
    from training.sft.encode import DialogueEncoder

    processor = stand_in_processor()
    row = rows.generated(tmp_path, 4096, 262144, processor, tags)
    encoder = DialogueEncoder(processor, 10**6, lambda _: 324)
    encoded = encoder.encode(row.dialogue)
    assert 0.75 * 4096 <= len(encoded.input_ids) <= 4096
    tagged_parts(answered_turns(row.dialogue.turns), tags)


@pytest.mark.parametrize(("schema", "name"), [(TutorReply, "tutor"), (JudgeScores, "judge")])
def test_the_stand_in_answers_what_a_schema_asks_for(schema, name):
    client = TestClient(stand_in.create_app())
    assert client.get("/v1/models").json()["data"][0]["id"] == stand_in.MODEL
    answers = set()
    for number in range(20):
        messages = [{"role": "user", "content": f"hello {number}"}]
        body = {"model": stand_in.MODEL, "messages": messages, "response_format": response_format(schema, name)}
        answer = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
        schema.model_validate(json.loads(answer))
        answers.add(answer)
    assert len(answers) > 10, "equal scores of all answers would leave the weights as they are"


def test_the_forecast_follows_steps_and_seconds(tmp_path):
    configs, settings, _ = split(["configs/sft/miniature.yaml"])
    row = rows.of_the_miniature(tmp_path)
    data = rows.write([row], tmp_path / "steer_sft.jsonl", 40)
    stage = subjects(configs, settings, [f"data={data}"])[0]
    play = Play(seconds=[9.0, 2.0], start_s=10.0, peak=1e9)
    lines = forecast(stage, play, settings, {}, [row])
    assert lines[0] == "sft: 40 rows of the data"
    assert lines[1].startswith("sft: 15 steps of 2.0 s and 10 s of start and end: 0.01 hours"), lines
    assert forecast(stage, Play(), settings, {}, [row]) == ["sft: no step was seen, so nothing is predicted"]


def test_the_forecast_of_the_paper_has_hours_cost_and_the_model_beside_it():
    configs, settings, overrides = split([CONFIGS["grpo"], TUTOR])
    stage = subjects(configs, settings, overrides)[0]
    lines = forecast(stage, Play(seconds=[90.0, 60.0], start_s=100.0), settings, {"tutor": 100.0}, [])
    text = "\n".join(lines)
    assert "31 steps of" in text
    assert "GPU hours, $" in text
    assert "docs/scaling.md" in text


@pytest.mark.parametrize(
    ("reasons", "norm", "nats", "verdicts"),
    [
        ([None] * 8, 0.5, 0.004, ["ok", "ok", "ok", "ok"]),
        ([None] * 7 + ["token accounting: boundary"], 0.5, 0.004, ["breaks", "warning", "ok", "ok"]),
        (["turn 2: transport: 503"] * 4 + [None] * 4, 0.0, 0.4, ["ok", "warning", "warning", "warning"]),
    ],
)
def test_what_two_steps_of_grpo_say(reasons, norm, nats, verdicts, tmp_path):
    rows_ = [{"meta": {"reason": reason}} for reason in reasons]
    (tmp_path / "trajectories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_))
    masked = sum(reason is not None for reason in reasons)
    found = _grpo_numbers(
        [{"rollout/masked": masked, "actor/grad_norm": norm, "rollout_corr/log_ppl_abs_diff": nats}], tmp_path
    )
    assert [finding.verdict for finding in found] == verdicts, found
