"""The entry point over real HTTP and real processes: dry run, the three steps, resuming, errors; and once with vLLM."""

import csv
import io
import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import pytest

from evaluation import run as entry
from evaluation.config import EvaluationConfig, ServingConfig
from evaluation.multi_turn.inference import _facts
from safer_steer.cli import run_cli
from safer_steer.config import load_config
from safer_steer.data_block import parse_data_block

NOBODY = "http://127.0.0.1:1/v1"
GOOD = json.dumps({"harmlessness": 3, "helpfulness": 3})


def evaluate(*arguments):
    """The entry point in this process: the command line, its exit code, what it printed."""
    out, err = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as caught:
            run_cli(entry.__doc__, EvaluationConfig, entry.plan, entry.main, entry.DEFAULT_CONFIG, list(arguments))
    finally:
        signal.signal(signal.SIGTERM, handler)
    return SimpleNamespace(returncode=caught.value.code, stdout=out.getvalue(), stderr=err.getvalue())


def behave(body):
    """Judge and model under test in one server."""
    return GOOD if body.get("response_format") else "an answer"


@pytest.fixture
def yaml(tmp_path, bench):
    """A config with two models at an endpoint that the server of the test takes."""

    def write(base):
        path = tmp_path / "config.yaml"
        path.write_text(
            f"""
root: {tmp_path}/run
output: ${{root}}/evaluation
benchmarks: ["{bench.parent}/*.jsonl"]
models:
  one: {{title: One, endpoint: {{model: m, base_url: "{base}", max_retries: 0}}}}
  two: {{endpoint: {{model: m, base_url: "{base}", max_retries: 0}}}}
sampling: {{max_tokens: 32}}
serving: {{max_model_len: 384}}
judge: {{model: m, base_url: "{base}", max_retries: 0}}
passing: {{bootstrap_resamples: 200}}
report: {{folder: "${{root}}/report", note: A note.}}
""",
            encoding="utf-8",
        )
        return str(path)

    return write


def test_three_steps_then_nothing_and_a_changed_config_is_refused(serve, yaml, tmp_path):
    with serve(behave) as server:
        path = yaml(server.url)
        first = evaluate(path)
        assert first.returncode == 0, first.stderr
        assert len(server.requests) == 2 * 18 * 2
        server.requests.clear()
        lines = [
            line.split(":")[0] for line in first.stdout.splitlines() if line.startswith(("infer", "judge", "report"))
        ]
        assert lines == ["infer one", "infer two", "judge one", "judge two", "report"]
    second = evaluate(path)  # no server any more: nothing is called
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("nothing to do") == 5
    summary = json.loads((tmp_path / "run/evaluation/summary.json").read_text())
    assert (summary["models"]["one"]["safe"], summary["models"]["two"]["n_dialogues"]) == (100.0, 6)
    assert summary["note"] == "A note."
    changed = evaluate(path, "sampling.temperature=0.5")
    assert changed.returncode == 2
    assert changed.stderr.count("\n") == 1
    assert "sampling.temperature 1.0 -> 0.5" in changed.stderr


def test_another_judge_needs_no_new_inference_and_agreement_is_reported(serve, yaml, tmp_path):
    with serve(behave) as server:
        path = yaml(server.url)
        assert evaluate(path).returncode == 0
        server.requests.clear()
        changed = evaluate(path, "judge.temperature=0.7")
        assert changed.returncode == 2
        assert "judges.NAME" in changed.stderr
        second = f"judges.warm={{model: m, base_url: '{server.url}', max_retries: 0, temperature: 0.7}}"
        answer = evaluate(path, second, "report.judge=warm")
        assert answer.returncode == 0, answer.stderr
    assert len(server.requests) == 2 * 18
    assert all(body["temperature"] == 0.7 for body in server.requests)
    summary = json.loads((tmp_path / "run/evaluation/summary.json").read_text())
    assert [scale["n"] for scale in summary["agreement"]["One"]] == [18, 18]
    assert summary["agreement"]["One"][0]["pairs"][0]["equal"] == 1.0
    assert "Agreement of judges" in (tmp_path / "run/report/tables.md").read_text()
    assert len(summary["judges"]) == 1
    verdicts = sorted(path.name for path in (tmp_path / "run/evaluation/one").glob("verdicts*"))
    assert verdicts == ["verdicts.jsonl", "verdicts.warm.jsonl"]


def test_killed_at_random_moments_and_resumed_gives_the_same_files(serve, yaml, tmp_path):
    names = [
        f"run/evaluation/{model}/{file}" for model in ("one", "two") for file in ("answers.jsonl", "verdicts.jsonl")
    ]
    with serve(behave) as server:
        path = yaml(server.url)
        assert evaluate(path).returncode == 0
        whole = {name: (tmp_path / name).read_bytes() for name in names}
        shutil.rmtree(tmp_path / "run")
        kill_at = random.Random(4).sample(range(5, 70), 2)

        def slow(body):
            time.sleep(0.01)  # in the server's loop: one answer after the other
            return behave(body)

        server.behave, server.requests, killed = slow, [], 0
        for limit in sorted(kill_at):
            process = subprocess.Popen([sys.executable, "-m", "evaluation.run", path], stdout=subprocess.DEVNULL)
            while len(server.requests) < limit and process.poll() is None:
                time.sleep(0.005)
            killed += process.poll() is None
            process.kill()
            process.wait()
        assert evaluate(path).returncode == 0
    assert killed >= 1
    assert {name: (tmp_path / name).read_bytes() for name in names} == whole


def test_a_service_that_is_not_configured_is_found_before_any_inference(yaml):
    answer = evaluate(yaml(NOBODY), "judge.base_url=service:juge", "--dry-run")
    assert answer.returncode == 2
    assert "service:juge: no such service" in answer.stderr


def test_dry_run_counts_calls_and_touches_nothing(yaml, tmp_path):
    answer = evaluate(yaml(NOBODY), "--dry-run")
    assert answer.returncode == 0
    assert "calls of evaluated_one: at most 18" in answer.stdout
    assert "calls of judge: at most 36" in answer.stdout
    adaptive = evaluate(
        yaml(NOBODY),
        "mode=adaptive",
        "tutor={model: t, base_url: http://127.0.0.1:1/v1, prompt: none.jinja}",
        "--dry-run",
    )
    assert "calls of tutor: at most 24" in adaptive.stdout
    tutor = f"tutor={{model: t, base_url: {NOBODY}}}"
    both = evaluate(yaml(NOBODY), "mode=both", tutor, "--dry-run").stdout
    assert all(
        f"calls of {role}: at most {n}" in both for role, n in (("evaluated_one", 36), ("judge", 72), ("tutor", 24))
    )
    clash = evaluate(yaml(NOBODY), "mode=both", tutor, f"models.adaptive.endpoint={{model: m, base_url: {NOBODY}}}")
    assert (clash.returncode, "model 'adaptive': a folder of that name" in clash.stderr) == (2, True)
    assert not (tmp_path / "run").exists()


def test_static_and_adaptive_in_one_run(serve, yaml, tmp_path):
    """The model keeps to the benchmark's turns and gives in when the tutor presses on."""

    def attacked(body):
        asked = body["messages"][-1]["content"]
        text = asked if isinstance(asked, str) else asked[-1]["text"]
        match (body.get("response_format") or {}).get("json_schema", {}).get("name"):
            case "tutor":
                scores = {"safety": 8, "usefulness": 8, "faithfulness": 10}
                reply = {"diagnosis": "d", "scores": scores, "attack_strategy": "persistence"}
                return json.dumps(reply | {"new_question": "i press on"})
            case "judge":
                given_in = parse_data_block(text)["assistant"] == "it gives in"
                return json.dumps({"harmlessness": -3 if given_in else 3, "helpfulness": 0 if given_in else 3})
        return "it gives in" if "i press on" in text else "no"

    with serve(attacked) as server:
        command = yaml(server.url), "mode=both", f"tutor={{model: m, base_url: {server.url}, max_retries: 0}}"
        done = evaluate(*command)
        assert done.returncode == 0, done.stderr
        calls = len(server.requests)
        assert "already finished" in evaluate(*command).stdout
        assert len(server.requests) == calls == 2 * 18 * 2 * 2 + 2 * 12
    main = (tmp_path / "run/report/tables/summary.csv").read_text().splitlines()
    header, one = (next(csv.reader([line])) for line in main[:2])
    found = dict(zip(header, one, strict=True))
    assert (found["safe %"], found["safe, adaptive %"]) == ("100.0", "0.0")
    assert found["adaptive − static, points"].lstrip("'").startswith("-100.0 (-100.0 to -")
    moves = (tmp_path / "run/report/tables/moves.csv").read_text().splitlines()
    assert moves[1].startswith('"One, adaptive",persistence,6,6,100.0')
    assert moves[1].endswith("2 × 6,'-3 × 6")  # the quote: no formula for a spreadsheet


def test_the_environments_model_under_test_is_in_the_record_and_in_the_plan(serve, yaml, tmp_path, monkeypatch):
    with serve(behave) as server:
        path = yaml(NOBODY)  # nobody answers there
        for name in ("EVALUATED_ONE", "EVALUATED_TWO", "JUDGE"):
            monkeypatch.setenv(f"{name}_API_BASE_URL", server.url)
        plan = evaluate(path, "--dry-run").stdout
        assert f"one ({server.url})" in plan
        assert "in place of the config's values: EVALUATED_ONE_API_BASE_URL, EVALUATED_TWO_API_BASE_URL, JUDGE_" in plan
        assert evaluate(path, "models.one.endpoint.model=another", "models.two.endpoint.model=another").returncode == 2
        monkeypatch.setenv("EVALUATED_ONE_MODEL", "m")
        assert evaluate(path, "models.one.endpoint.model=another", "output=${root}/own").returncode == 0
    record = json.loads((tmp_path / "run/own/one/infer.json").read_text())
    assert record["facts"]["config"]["model"] == "m"
    assert record["facts"]["config"]["roles"]["evaluated_one"]["model"] == "m"


def test_the_environment_does_not_send_the_calls_of_a_checkpoint_elsewhere(monkeypatch, tmp_path):
    config = "configs/evaluation/steer_bench.yaml", f"root={tmp_path}"
    assert evaluate(*config, "--dry-run").returncode == 0
    monkeypatch.setenv("EVALUATED_SFT_API_BASE_URL", "http://127.0.0.1:9/v1")
    answer = evaluate(*config, "--dry-run")
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
    assert "EVALUATED_SFT_API_BASE_URL of the environment: model sft is a checkpoint" in answer.stderr


def test_answers_of_a_checkpoint_depend_on_its_servers_arguments(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"a")

    def facts(*arguments):
        overrides = [f"models.base.checkpoint={tmp_path}", f"serving.arguments=[{','.join(arguments)}]"]
        config = load_config(EvaluationConfig, "configs/evaluation/single_turn.yaml", overrides)
        return _facts(config, "base", config.models["base"])

    assert facts("--quantization=fp8")["arguments"] == ["--quantization=fp8"]
    assert facts("--enable-prefix-caching")["arguments"] == []


@pytest.mark.parametrize("ahead", [True, False])
def test_every_model_but_the_last_knows_whose_server_may_start_ahead(ahead, yaml, monkeypatch):
    config = load_config(EvaluationConfig, str(yaml(NOBODY)), [])
    serving = config.serving.model_copy(update={"start_ahead": ahead})
    stages = []
    monkeypatch.setattr(entry, "run", lambda found, _: stages.extend(itertools.islice(found, 2)))
    monkeypatch.setattr(entry, "Report", lambda _: SimpleNamespace(build=lambda: True))
    entry.main(config.model_copy(update={"serving": serving}))
    assert [stage.following and stage.following().name for stage in stages] == ["infer two" if ahead else None, None]


def test_two_servers_at_once_need_room_on_a_gpu():
    with pytest.raises(ValueError, match=r"gpu_memory_utilization \(0.9\) must be at most 0.45"):
        ServingConfig(max_model_len=64, start_ahead=True)
