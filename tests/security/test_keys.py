"""Keys come from the environment and appear nowhere: the real stages run with a canary key, against servers that take
it and servers that repeat it in their errors, and everything they print and write is searched for it.
"""

import json
import logging
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from evaluation.config import EvaluationConfig
from http_doubles import Script
from miniature.language import ask
from miniature.seeds import SeedsConfig, make_seeds
from miniature.teacher import create_app
from miniature.world import draw, random_scene
from safer_steer.config import load_config, validate
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import UserError
from safer_steer.images import ImageStore
from safer_steer.llm import EndpointConfig, LLMClient, ResponseCache
from safer_steer.runs import Run
from safer_steer.secrets import without_keys
from safer_steer.servers import ServiceConfig, VllmConfig
from safer_steer.store import read_jsonl, write_jsonl
from safer_steer.verdict import Unscored
from safer_steer_verl.interactions.safety_tutor import SafetyTutor, TutorTurn

CANARY = "sk-canary-5d1f0c7a9b"
TEACHER = {"serves": "mini-generator", "command": ["python", "-m", "miniature.teacher", "--port", "{port}"]}
BAD_ADDRESSES = (f"https://me:{CANARY}@host.example/v1", f"https://host.example/v1?key={CANARY}")
ROLES = ("OPENAI", "GENERATOR", "RED", "BLUE", "TARGET", "EVALUATOR", "JUDGE", "TUTOR", "EVALUATED_BLUE")


@pytest.fixture(autouse=True)
def canary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The key, in the environment of this process and of those that it starts; temporary files go to `tmp_path`."""
    for role in ROLES:
        monkeypatch.setenv(f"{role}_API_KEY", CANARY)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return CANARY


@pytest.fixture
def run_stage() -> Callable[..., subprocess.CompletedProcess]:
    """Runs a stage's real command; its output must not hold the canary."""

    def run(module: str, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", module, *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=550, env=os.environ, check=False)
        assert CANARY not in answer.stdout + answer.stderr
        return answer

    return run


@pytest.fixture
def refusing(serve) -> tuple[str, list[str]]:
    """A server that lists every model, refuses every call and repeats the key wherever a server could; the keys it was
    sent.
    """

    def refuse(_: dict) -> tuple:
        header = server.headers[-1]["authorization"]
        sent.append(header)
        message = f"Incorrect API key provided: {header.removeprefix('Bearer ')} ({header})"
        return 401, {"error": {"message": message, "code": header}}, {"www-authenticate": header}

    names = ("generator", "red", "blue", "evaluator", "judge", "tutor")
    server, sent = Script(refuse, models=tuple(f"mini-{name}" for name in names)), []
    return serve(server.app), sent


def files_with(text: str, folder: Path) -> list[Path]:
    """Every file below a folder whose name or bytes hold a text."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files, f"nothing was written to {folder}"
    return [path for path in files if text in str(path) or text.encode() in path.read_bytes()]


def data_config(root: Path, url: str) -> str:
    """A small run of Stages I and II whose roles are at `url`."""
    world = SeedsConfig(root=str(root), seed=0, train=4, bench=1, sealed_share=0.75, allowed_share=0.2)
    write_jsonl(root / "world" / "train" / "seeds.jsonl", make_seeds(world, "train"))
    names = {"generator": "generator", "target": "blue", "red": "red", "blue": "blue", "evaluator": "evaluator"}
    config = {
        "root": str(root),
        "services": {"teacher": TEACHER} if url.startswith("service:") else {},
        "steps": ["stage1", "stage2"],
        "sources": {"train": {"reader": "jsonl", "path": str(root / "world" / "train" / "seeds.jsonl")}},
        "turns": {kind: {"min": 2, "max": 3} for kind in ("benign", "obfuscated", "red_team")},
        "red_team": {"strategies_per_seed": 1, "min_rewrite_words": 1},
        "quality": {"picture_words": []},
        "roles": {role: {"model": f"mini-{name}", "base_url": url, "max_retries": 0} for role, name in names.items()},
    }
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(path)


def evaluation_config(root: Path, url: str) -> str:
    """An adaptive evaluation of the teacher's blue expert, whose tutor and judge are at `url`."""
    folder, rng = root / "data" / "steer_bench", random.Random(0)
    picture = ImageStore(folder).put(draw(random_scene(rng, True, True), rng))
    turns = [Turn(user=ask(name, rng, "held_out")) for name in ("look", "open")]
    row = Dialogue(id="d", source="t", kind="red_team", strategy=None, images=[picture], turns=turns)
    write_jsonl(folder / "dys.jsonl", [row])
    config = yaml.safe_load(Path("configs/evaluation/miniature.yaml").read_text(encoding="utf-8"))
    config |= {
        "mode": "adaptive",
        "models": {"blue": {"endpoint": {"model": "mini-blue", "base_url": "service:teacher"}}},
    }
    config["report"] |= {"paper_rows": {}, "training": {}, "splits": {}}
    for role in ("judge", "tutor"):
        config[role] |= {"base_url": url, "max_retries": 0}
    path = root / "evaluation.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(path)


def test_data_construction_writes_no_key(run_stage, tmp_path):
    answer = run_stage("data_construction.pipeline", data_config(tmp_path, "service:teacher"))
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "data" / "run.stage2.json").is_file()
    assert list(tmp_path.rglob("*.sqlite*")), "the cache is among what is searched"
    assert files_with(CANARY, tmp_path) == []


def test_data_construction_repeats_no_key_that_a_server_repeats(run_stage, refusing, tmp_path):
    url, sent = refusing
    answer = run_stage("data_construction.pipeline", data_config(tmp_path, url))
    assert answer.returncode == 2
    assert f"Bearer {CANARY}" in sent
    assert "[key]" in (tmp_path / "data" / "rejects.jsonl").read_text(encoding="utf-8"), "the server's words are kept"
    assert files_with(CANARY, tmp_path) == []


def test_evaluation_writes_no_key(run_stage, tmp_path):
    answer = run_stage("evaluation.run", evaluation_config(tmp_path, "service:teacher"), f"root={tmp_path}")
    assert answer.returncode == 0, answer.stderr
    assert list(read_jsonl(tmp_path / "evaluation" / "blue" / "verdicts.jsonl"))
    assert files_with(CANARY, tmp_path) == []


def test_a_judge_and_a_tutor_that_repeat_the_key(run_stage, refusing, tmp_path):
    url, sent = refusing
    answer = run_stage("evaluation.run", evaluation_config(tmp_path, url), f"root={tmp_path}")
    assert answer.returncode == 2
    assert f"Bearer {CANARY}" in sent
    assert files_with(CANARY, tmp_path) == []


async def test_the_tutor_of_grpo_keeps_the_key_to_itself(serve, refusing, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    rng, seen = random.Random(0), ""
    picture = draw(random_scene(rng, True, True), rng)
    for url, expected in ((serve(create_app()), TutorTurn), (refusing[0], Unscored)):
        cache = ResponseCache(tmp_path / "cache.sqlite")
        client = LLMClient("tutor", EndpointConfig(model="mini-tutor", base_url=url, max_retries=0), cache)
        step = await SafetyTutor(client, True).step([], [picture], "what is it ?", f"a box {url}", "and now ?")
        assert isinstance(step, expected)
        seen += step.model_dump_json() + json.dumps(client.stats()) + repr(step)
        await client.close()
        cache.close()
    assert f"Bearer {CANARY}" in refusing[1]
    assert CANARY not in seen + caplog.text + "".join(capfd.readouterr())
    assert files_with(CANARY, tmp_path) == []


def test_an_address_with_a_key_is_refused_without_repeating_it(run_stage, tmp_path):
    user, query = BAD_ADDRESSES
    answers = [
        run_stage("data_construction.pipeline", data_config(tmp_path, user), "--dry-run"),
        run_stage("evaluation.run", evaluation_config(tmp_path, query), "--dry-run"),
        run_stage("training.grpo.run", "configs/grpo/miniature.yaml", f"safer_steer.tutor.base_url='{user}'"),
    ]
    for answer in answers:
        assert answer.returncode == 2, answer.stdout
        assert re.search("base_url|the value of OPENAI_API_KEY is in the config", answer.stderr)


def test_a_config_holds_no_key_under_any_name(tmp_path, monkeypatch):
    """Settings that are passed on as they are could carry one: they would be printed, recorded and shown by `ps`."""
    other = "another-credential"
    for build in (
        lambda: {"extra_body": {"api_key": other}},
        lambda: {"extra_body": {"metadata": [{"Authorization": f"Bearer {other}"}]}},
    ):
        with pytest.raises(UserError, match="credential") as error:
            validate(EndpointConfig, {"model": "m", "base_url": "http://h/v1"} | build(), "c.yaml")
        assert other not in str(error.value)
    for service in (
        {"command": ["serve", "--api-key", other]},
        {"command": ["serve", f"--api-key={other}"]},
        {"command": ["serve"], "env": {"HF_TOKEN": other}},
        {"command": ["serve"], "env": {"OPENAI_API_KEY": other}, "vllm": {}},
    ):
        with pytest.raises(UserError) as error:
            validate(ServiceConfig, {"serves": "m"} | service, "c.yaml")
        assert other not in str(error.value)
    with pytest.raises(UserError, match="credential") as error:
        validate(VllmConfig, {"checkpoint": "c", "max_model_len": 64, "arguments": ["--api-key", other]}, "c.yaml")
    assert other not in str(error.value)
    # None of these is one: they stay allowed.
    body = {"top_k": 20, "prompt_cache_key": "a", "max_tokens": 3, "chat_template_kwargs": {"thinking": False}}
    validate(EndpointConfig, {"model": "m", "base_url": "http://h/v1", "extra_body": body}, "c.yaml")


def test_a_key_that_reaches_a_config_by_interpolation_or_the_command_line_is_refused(tmp_path):
    path = tmp_path / "evaluation.yaml"
    path.write_text("root: ${oc.env:JUDGE_API_KEY}\n", encoding="utf-8")
    for overrides in ([], [f"output={CANARY}"], [f"judge.api_key={CANARY}"], [CANARY]):
        with pytest.raises(UserError) as error:
            load_config(EvaluationConfig, path, overrides)
        assert CANARY not in str(error.value)


def test_records_and_locks_strike_keys_out_of_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["run.py", f"x.api_key={CANARY}", "y.api_key=other-one", f"u=https://a:{CANARY}@h/v1"]
    )
    config = EndpointConfig(model="m", base_url="http://h/v1")
    with Run.open(tmp_path / "run", config, stage="s") as run:
        holder = (tmp_path / "run" / ".lock").read_text(encoding="utf-8")  # what a second process is told
        run.finish({})
    assert "x.api_key=" in run.record["command"]
    assert "x.api_key=" in holder
    assert "other-one" not in holder + run.record["command"]
    assert files_with(CANARY, tmp_path) == files_with("other-one", tmp_path) == []


def test_what_is_struck_out_and_what_stays(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_canary_token")
    monkeypatch.setenv("JUDGE_API_KEY", "none")
    text = f"{CANARY} and hf_canary_token at https://me:pass@host/v1?key=abc, api_key=xyz, {{'password': 'p'}}"
    hidden = without_keys(text)
    for secret in (CANARY, "hf_canary_token", "me:pass", "abc", "xyz", "'p'"):
        assert secret not in hidden
    for plain in ("none of it", "Is it red? yes", "judge.api_key: unknown key", "max_tokens=5", "(set JUDGE_API_KEY)"):
        assert without_keys(plain) == plain
    assert os.environ["JUDGE_API_KEY"] == "none"
