"""A real GRPO run of a random-init student, stopped and resumed: verl, Ray, two FSDP ranks, two vLLM replicas on a CPU,
two agent-loop workers.
"""

import json
import math
import random
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from grpo_run import SEED, command, make_inputs
from safer_steer.dialogue import Dialogue
from safer_steer.store import read_jsonl, write_jsonl
from safer_steer.vlm import QWEN3_VL
from safer_steer_verl.beats import MICRO_BATCH, TURN, VERDICT

pytestmark = pytest.mark.integration
KILL_WITHIN_S = 60.0  # of the run's start: before, in and after its first step
KILL_SEED = 0


def run_grpo(root: Path, *, down_after: float = math.inf) -> subprocess.CompletedProcess:
    """Runs the command to its end."""
    return subprocess.run(command(root, down_after), capture_output=True, text=True, check=False)


def kill_grpo(root: Path, at_most_s: float) -> str:
    """Starts the command and kills it (`kill -9`) at a seeded moment after its start-up; what it said on stderr."""
    after_s = random.Random(KILL_SEED).uniform(0, at_most_s)
    print(f"killed {after_s:.1f} s after its start-up (seed {KILL_SEED})")
    with (root / "killed.txt").open("w") as said:
        process = subprocess.Popen(command(root), stdout=subprocess.DEVNULL, stderr=said)
    deadline = time.monotonic() + 120
    while "continues after" not in (root / "killed.txt").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    with suppress(subprocess.TimeoutExpired):
        process.wait(after_s)
    process.kill()
    process.wait()
    return (root / "killed.txt").read_text()


def data_order(prompts: int, batch: int, steps: int, seed: int) -> list[set[str]]:
    """The dialogues of every step of an uninterrupted run, from verl's own sampler and the loader that it uses."""
    from torchdata.stateful_dataloader import StatefulDataLoader
    from verl.trainer.ppo.utils import create_rl_sampler

    rows = range(prompts)
    sampler = create_rl_sampler(OmegaConf.create({"shuffle": True, "seed": seed}), rows)
    loader = StatefulDataLoader(rows, batch_size=batch, drop_last=True, sampler=sampler, collate_fn=list)
    order: list[set[str]] = []
    while len(order) < steps:
        order += [{f"d{number}" for number in numbers} for numbers in loader]
    return order[:steps]


@pytest.mark.timeout(3000)
def test_a_run_whose_tutor_dies_and_that_is_killed_goes_on_to_the_same_steps(tmp_path):
    """One dialogue never gets its score. The tutor dies after step 2, whose rows are lost too; the same command does it
    again, is killed at a seeded moment, and the third time finishes the run.
    """
    make_inputs(tmp_path)
    folder = tmp_path / "grpo"
    # Before training, 5 x 3 + 2 calls on the held-out prompts; a step has 22 or 24: two are whole, and step 3 is not.
    stopped = run_grpo(tmp_path, down_after=65)
    assert stopped.returncode == 2, stopped.stderr
    last = stopped.stderr.strip().splitlines()[-1]
    assert re.match(r"error: step 3: (88|100)% of 8 trajectories have no score", last), last
    assert "503" in last
    assert not (folder / "checkpoint").exists()
    metrics = list(read_jsonl(folder / "metrics.jsonl"))
    assert [row["step"] for row in metrics] == [0, 1, 2]
    said = (folder / "log" / "verl.log").read_text().splitlines()
    at = next(number for number, line in enumerate(said) if "'--generation_config'" in line)
    assert "'vllm'" in said[at] + said[at + 1], "the rollout engine's arguments"
    first_rows = list(read_jsonl(folder / "trajectories.jsonl"))[:8]
    write_jsonl(folder / "metrics.jsonl", metrics[:2])  # as if killed after the checkpoint of step 2, before its rows

    killed = kill_grpo(tmp_path, KILL_WITHIN_S)
    assert "killed before the rows of step 2 were written; continues after step 1" in killed
    answer = run_grpo(tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "3 steps" in answer.stdout
    assert "fully_safe_share" in killed + answer.stderr  # the console says how each step went
    metrics = list(read_jsonl(folder / "metrics.jsonl"))
    assert [row["step"] for row in metrics] == [0, 1, 2, 3]
    assert metrics[0]["val/rollout/trajectories"] == metrics[3]["val/rollout/trajectories"] == 6
    assert metrics[0]["val/rollout/masked"] == 1
    for row in metrics[1:]:
        assert row["training/rollout_probs_diff_mean"] < 1e-3
        assert math.isfinite(row["actor/grad_norm"])
        assert row["rollout/mask_tokens"] == row["rollout/generated_tokens"]
        assert row["rollout/masked"] == row["rollout/unscored"] == 2 * row["rollout/masked_groups"]
        assert row["tutor/step_calls"] > 0
        assert row["tutor/latency_p95_s"] >= row["tutor/latency_p50_s"] > 0
        assert {"turn_01/safety", "actor/kl_loss", "actor/entropy", "timing_s/gen"} <= row.keys()
    check_trajectories(list(read_jsonl(folder / "trajectories.jsonl", Dialogue)), folder)
    assert list(read_jsonl(folder / "trajectories.jsonl"))[:8] == first_rows  # step 1 was not done again
    assert {path.name for path in (folder / "log" / "beats").iterdir()} == {TURN, VERDICT, MICRO_BATCH}
    check_exports(folder)
    assert list((folder / "tensorboard").glob("events.*"))
    with Image.open(folder / "curve.png") as picture:
        assert picture.format == "PNG"
    again = run_grpo(tmp_path)
    assert again.returncode == 0
    assert "already finished" in again.stdout


@pytest.mark.nightly
@pytest.mark.timeout(3000)
def test_the_next_family_takes_a_step(tmp_path):
    """Qwen3-VL: rollouts in vLLM, log-probs, an update, the export; one of four dialogues has no picture."""
    make_inputs(tmp_path, 4, QWEN3_VL)
    path = tmp_path / "data" / "steer_rl.jsonl"
    rows = list(read_jsonl(path, Dialogue))
    write_jsonl(path, [rows[0].model_copy(update={"images": []}), *rows[1:]])
    more = ["safer_steer.data.max_pixels=4096", "safer_steer.data.pictures=optional"]
    more += ["trainer.total_training_steps=1", "trainer.test_freq=-1", "trainer.val_before_train=false"]
    more += ["safer_steer.data.validation=[]"]
    words = [word for word in command(tmp_path) if not word.startswith("safer_steer.reward")]
    answer = subprocess.run([*words, *more], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    [row] = read_jsonl(tmp_path / "grpo" / "metrics.jsonl")
    assert row["training/rollout_probs_diff_mean"] < 1e-3, "the engine and the trainer compute the same model"
    assert math.isfinite(row["actor/grad_norm"])
    assert row["actor/grad_norm"] > 0
    played = list(read_jsonl(tmp_path / "grpo" / "trajectories.jsonl", Dialogue))
    assert sorted(len(row.images) for row in played) == [0, 0, *[1] * 6]
    assert not any(row.meta["token_fault"] for row in played if "token_fault" in row.meta)
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "grpo" / "checkpoint")
    assert model.config.model_type == "qwen3_vl"


def check_trajectories(rows: list[Dialogue], folder: Path) -> None:
    """Every trajectory is there once, in the data order of an uninterrupted run, masked only where a score is lost."""
    assert len(rows) == len({row.id for row in rows}) == 24
    for step, wanted in enumerate(data_order(6, 4, 3, SEED), start=1):
        assert {row.meta["dialogue"] for row in rows if row.meta["step"] == step} == wanted
    groups: dict[str, list[Dialogue]] = {}
    for row in rows:
        assert row.meta["masked"] == (row.meta["dialogue"] == "d0") == (row.meta["return"] is None)
        scored = [turn.scores is not None for turn in row.turns]
        assert scored == ([True, False] if row.meta["masked"] else [True] * 3)
        assert (folder / row.images[0]).is_file()  # relative to the file that holds the row
        for number, turn in enumerate(turn for turn in row.turns if turn.scores):
            assert turn.meta["reward"] == pytest.approx(2 * turn.scores.safety + number / 10)  # the user's function
        if not row.meta["masked"]:
            groups.setdefault(row.meta["group"], []).append(row)
    for group in groups.values():
        mean = sum(row.meta["return"] for row in group) / len(group)
        for row in group:
            for turn in row.turns:
                if turn.meta["advantage"] is not None:
                    assert turn.meta["advantage"] == pytest.approx(row.meta["return"] - mean, abs=1e-4)


def check_exports(folder: Path) -> None:
    """The last and the best step are plain Hugging Face folders, and the run's record says it is finished."""
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    for name in ("checkpoint", "best"):
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / name)
        assert AutoProcessor.from_pretrained(folder / name).image_token_id == model.config.image_token_id
        assert (folder / name / "answer_format.json").is_file()
    assert json.loads((folder / "best.json").read_text())["step"] in (1, 2, 3)
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
