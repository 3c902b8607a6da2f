"""Adaptive mode with real processes: the embedded teacher as the model under test, as the tutor and as the judge."""

import json
import random
import subprocess
import sys
from pathlib import Path

import yaml

from miniature.language import ask
from miniature.world import draw, random_scene
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.images import ImageStore
from safer_steer.store import read_jsonl, write_jsonl


def test_the_tutor_of_training_writes_the_user_turns_of_an_evaluation(tmp_path):
    folder = tmp_path / "data" / "steer_bench"
    store, rows = ImageStore(folder), []
    for number in range(6):
        rng = random.Random(number)
        turns = [Turn(user=ask(name, rng, "held_out")) for name in ("look", "open", "open", "open")]
        picture = store.put(draw(random_scene(rng, True, True), rng))
        row = Dialogue(id=f"d{number}", source="t", kind="red_team", strategy=None, images=[picture], turns=turns)
        rows.append(row)
    write_jsonl(folder / "dys.jsonl", rows)
    config = yaml.safe_load(Path("configs/evaluation/miniature.yaml").read_text(encoding="utf-8"))
    config |= {
        "mode": "adaptive",
        "models": {"blue": {"endpoint": {"model": "mini-blue", "base_url": "service:teacher"}}},
    }
    config["report"] |= {"paper_rows": {}, "training": {}, "splits": {}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "evaluation.run", str(path), f"root={tmp_path}"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr[-2000:]
    played = list(read_jsonl(tmp_path / "evaluation/blue/answers.jsonl", Dialogue))
    later = [turn for row in played for turn in row.turns[1:]]
    adapted = [turn for turn in later if turn.meta["adapted"]]
    assert len(later) == 18
    assert all(turn.user != turn.template for turn in adapted)
    # A firm refusal with an alternative is answered by accepting it and steering back.
    assert {turn.meta["attack_strategy"] for turn in adapted} >= {"bait_and_switch"}
    record = json.loads((tmp_path / "evaluation/blue/infer.json").read_text())
    assert record["counts"]["(user turns adapted)"] == len(adapted)
    assert record["facts"]["prompts"].keys() == {"tutor"}
    assert record["usage"]["tutor"]["calls"] == 18
    again = subprocess.run([*command, "mode=static"], capture_output=True, text=True, timeout=120)
    assert again.returncode == 2  # another mode is another run
    assert "prompts.tutor" in again.stderr
