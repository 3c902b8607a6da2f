"""Mistakes that cost a day on a cluster: each is found before an engine starts, in words that name it and its cure.

By the rehearsal's dry run, which makes the checks that every stage's dry run and start make too, or by one of the
rehearsal's own checks against a real HTTP server or real rows.
"""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from PIL import Image

from rehearsal import checks, rows, stand_in
from rehearsal.run import main
from rehearsal.servers import check_servers
from rehearsal.settings import split
from rehearsal.subjects import subjects
from safer_steer import gpus, machine
from safer_steer.errors import UserError
from safer_steer.images import ImageStore

SFT, GRPO, MINIATURE = (f"configs/{name}.yaml" for name in ("sft/qwen2_5_vl_3b", "grpo/qwen2_5_vl_3b", "sft/miniature"))
EVALUATION = "configs/evaluation/steer_bench.yaml"
TUTOR = "safer_steer.tutor.base_url=http://10.0.0.2:8000/v1"


@pytest.fixture
def said(tmp_path, capsys, monkeypatch):
    """What the dry run of a rehearsal says, its error included; the machine has 8 GPUs and is large."""
    fake_nvidia_smi(tmp_path, monkeypatch, driver="580.65.06", number=8)
    monkeypatch.setattr(machine, "host_memory", lambda: (2e12, 2e12))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(total=2e12, free=2e12))

    def run(*arguments: str) -> str:
        if GRPO in arguments and not any("base_url" in item for item in arguments):
            arguments = (*arguments, "safer_steer.tutor.base_url=http://10.0.0.2:8000/v1")
        try:
            main([*arguments, f"root={tmp_path / 'root'}", f"rehearse.folder={tmp_path / 'rehearsal'}"], dry_run=True)
        except UserError as error:
            return str(error)
        return capsys.readouterr().out

    return run


def fake_nvidia_smi(folder: Path, monkeypatch, driver: str, number: int) -> None:
    """A program of this name on the path, and a torch built for CUDA 13."""
    lines = "".join(f"GPU {i}: NVIDIA A800-SXM4-80GB (UUID: GPU-{i:08d}-0000)\\n" for i in range(number))
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/bash\nif [[ $1 == -L ]]; then printf '{lines}'; else echo {driver}; fi\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "installed_cuda", lambda: 13)
    monkeypatch.setattr(gpus, "_driver_cuda", lambda: None)


def test_nothing_is_found_where_nothing_is_wrong(said):
    text = said(SFT)
    assert text.startswith("# plan\n"), text
    assert "breaks" not in text, text


# mistake -> configs and keys, and what is said of it
OF_THE_CONFIG = {
    "flash-attn forced, not installed": (
        [GRPO, TUTOR, "safer_steer.attention=flash_attn"],
        "flash-attn is not installed",
    ),
    "loopback tutor, two nodes": (
        [GRPO, "trainer.nnodes=2", "safer_steer.tutor.base_url=http://127.0.0.1:8000/v1"],
        r"127\.0\.0\.1.*nodes?",
    ),
    "max_model_len too small": (
        [GRPO, TUTOR, "actor_rollout_ref.rollout.max_model_len=8192"],
        r"max_model_len: 8192 is below prompt \+ response = 10240",
    ),
    "micro-batch that does not divide": (
        [GRPO, TUTOR, "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=3"],
        "ppo_micro_batch_size_per_gpu: 3 does not divide a rank's 40 trajectories",
    ),
    "batch arithmetic": ([SFT, "training.batch_size=12"], r"batch_size 12 is not .* = 16"),
    "picture limits that differ": ([SFT, GRPO, TUTOR, "images.max_pixels=100352"], "sft 100352, grpo 262144"),
    "checkpoint missing": ([GRPO, TUTOR], "sft/checkpoint is not there yet.*the stage before writes it"),
    "key that no config has": ([SFT, "training.epoch=3"], r"training\.epoch=3: no given config has this key"),
    "key not set": ([EVALUATION], r"no key is in the environment.*set JUDGE_API_KEY"),
}


@pytest.mark.parametrize("mistake", OF_THE_CONFIG)
def test_a_mistake_of_the_config(mistake, said, monkeypatch):
    for name in ("JUDGE_API_KEY", "OPENAI_API_KEY", "TUTOR_API_KEY", "TUTOR_API_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    arguments, words = OF_THE_CONFIG[mistake]
    text = said(*arguments)
    assert re.search(words, text), text


def small_disk(monkeypatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(total=1e12, free=5e10))


def small_memory(monkeypatch) -> None:
    monkeypatch.setattr(machine, "host_memory", lambda: (3.2e10, 3e10))


def small_shm(monkeypatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(total=64 * 2**20, free=1e13))


def read_only(monkeypatch) -> None:
    monkeypatch.setattr(machine.os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))


OF_THE_MACHINE = {
    "disk": (small_disk, GRPO, r"breaks: grpo: disk: 50\.0 GB free.*needed: [\d.]+ GB \(2 checkpoints.*larger disk"),
    "host memory": (small_memory, GRPO, r"breaks: grpo: host memory: 32\.0 GB.*needed: 123\.1 GB.*8 rank\(s\)"),
    "/dev/shm": (small_shm, SFT, r"breaks: sft: /dev/shm: 67 MB, needed: 1\.1 GB.*--shm-size"),
    "read-only folder": (read_only, SFT, r"breaks: sft: output folder: .*mounted read-only.*give this user the right"),
}


@pytest.mark.parametrize("mistake", OF_THE_MACHINE)
def test_a_machine_that_is_too_small(mistake, said, monkeypatch):
    change, config, words = OF_THE_MACHINE[mistake]
    change(monkeypatch)
    text = said(config, *([TUTOR] if config == GRPO else []))
    assert re.search(words, text), text


@pytest.mark.parametrize(
    ("driver", "number", "words"),
    [
        ("535.104.05", 8, r"breaks: sft: NVIDIA driver: 535\.104\.05.*too old for CUDA 13.*580 or newer"),
        ("580.65.06", 4, r"breaks: sft: GPUs: 4 visible, needed: 8 on each of 1 node"),
    ],
)
def test_driver_and_number_of_gpus(driver, number, words, said, tmp_path, monkeypatch):
    fake_nvidia_smi(tmp_path, monkeypatch, driver, number)
    text = said(SFT)
    assert re.search(words, text), text


def subject(*arguments: str):
    configs, settings, overrides = split(list(arguments))
    return subjects(configs, settings, overrides)[0]


def server(model: str, key: str | None = None) -> FastAPI:
    """The stand-in under another model's name, or one that asks for a key."""
    app = FastAPI()

    @app.middleware("http")
    async def guard(request: Request, answer):
        if key and request.headers.get("authorization") != f"Bearer {key}":
            return JSONResponse({"error": {"message": "no key"}}, 401)
        return await answer(request)

    @app.get("/v1/models")
    def models() -> dict:
        return {"object": "list", "data": [{"id": model, "object": "model"}]}

    app.mount("/", stand_in.create_app())
    return app


@pytest.mark.parametrize(
    ("model", "asked", "sent", "words"),
    [
        ("Qwen/Qwen3-VL-32B-Instruct", "tutor-key", None, "set TUTOR_API_KEY"),
        ("Qwen/Qwen3-VL-8B-Instruct", None, None, "does not serve 'Qwen/Qwen3-VL-32B-Instruct'"),
        ("Qwen/Qwen3-VL-32B-Instruct", "tutor-key", "tutor-key", ""),
    ],
    ids=["missing key", "another model", "right"],
)
def test_a_tutor_that_will_not_answer(model, asked, sent, words, serve, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("TUTOR_API_KEY", raising=False)
    if sent:
        monkeypatch.setenv("TUTOR_API_KEY", sent)
    stage = subject(
        GRPO, f"safer_steer.tutor.base_url={serve(server(model, asked))}", "safer_steer.layout.tutor_gpus=0"
    )
    findings, rates = check_servers(stage, None, tmp_path)
    assert [finding.verdict for finding in findings] == ["breaks" if words else "ok"], findings
    assert words in str(findings[0])
    assert bool(rates.get("tutor")) == (not words)


def test_a_checkpoint_without_processor(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    found = checks.check_model(subject(MINIATURE, f"model={folder}"))[0]
    assert found.verdict == "breaks"
    assert "lacks tokenizer_config.json, chat_template.jinja, processor_config.json" in found.found


def test_rows_longer_than_the_longest_sequence(tmp_path):
    from miniature.student import build_processor

    processor = build_processor()
    row = rows.of_the_miniature(tmp_path)
    fits = checks.check_rows(subject(MINIATURE), [row], processor)[0]
    assert fits.verdict == "ok", fits
    cut = checks.check_rows(subject(MINIATURE, "max_length=96"), [row], processor)[0]
    assert (cut.verdict, "1 shortened" in cut.found) == ("warning", True), cut
    none = checks.check_rows(subject(MINIATURE, "max_length=16"), [row], processor)[0]
    assert (none.verdict, "too long" in none.advice) == ("breaks", True), none


def test_every_role_of_the_miniature_answers(tmp_path):
    """Its embedded teacher is started for that; the target is a checkpoint that the run itself serves."""
    stage = subject("configs/data_construction/miniature.yaml", f"root={tmp_path}")
    row = rows.of_the_miniature(tmp_path)
    findings, rates = check_servers(stage, row.folder / row.dialogue.images[0], tmp_path)
    verdicts = {finding.check: finding.verdict for finding in findings}
    assert verdicts.pop("target") == "not checked"
    assert set(verdicts.values()) == {"ok"}, findings
    assert rates.keys() == verdicts.keys()


def test_picture_tokens_are_counted_in_every_stage(tmp_path):
    from rehearsal.weights import stand_in_processor

    configs, settings, overrides = split([SFT, EVALUATION, "max_pixels=100352"])
    stages, processor = subjects(configs, settings, overrides), stand_in_processor()
    store, shown = ImageStore(tmp_path), Image.effect_noise((900, 700), 60).convert("RGB")
    row = rows.of_the_miniature(tmp_path)
    large = row.dialogue.model_copy(update={"images": [store.put(shown)]})
    found = checks.check_pictures(stages, [rows.Row(large, tmp_path)], processor)
    assert [finding.verdict for finding in found] == ["breaks"], found
    assert "1 have other numbers" in found[0].found
    same = checks.check_pictures(stages[:1], [rows.Row(large, tmp_path), row], processor)
    assert [finding.verdict for finding in same] == ["ok"], same
    processor.image_processor.size = {"shortest_edge": 3136, "longest_edge": 100352}
    made = checks.check_pictures(stages[:1], [row], processor)
    assert "it was made for that picture size" in made[0].found


def test_hidden_gpus_are_not_counted(said, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert "2 visible (CUDA_VISIBLE_DEVICES=0,1), needed: 8" in said(SFT)
