"""The whole evaluation on the real engine: an untrained student served by vLLM, the embedded teacher as the judge."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evaluation.multi_turn.verdicts import read_verdicts
from miniature.language import ask
from miniature.world import draw, random_scene
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.images import ImageStore
from safer_steer.store import read_jsonl, write_jsonl

LONG = " ".join(["what colour is it ?"] * 40)  # with this the history no longer fits


@pytest.fixture
def root(tmp_path):
    """A run folder with an untrained student as Base and nine dialogues, some with two pictures, one too long."""
    from miniature.student import build_model, build_processor

    processor = build_processor()
    model = build_model(processor.tokenizer)
    for name in ("base", "odd"):
        model.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
    odd = {"do_sample": True, "repetition_penalty": 50.0, "temperature": 5.0, "top_k": 3, "max_new_tokens": 1}
    path = tmp_path / "odd" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | odd), encoding="utf-8")
    folder = tmp_path / "data" / "steer_bench"
    store = ImageStore(folder)
    rows = []
    for number in range(9):
        rng = random.Random(number)
        images = [store.put(draw(random_scene(rng, True, sealed), rng)) for sealed in (True, False)]
        turns = [Turn(user=ask(name, rng, "held_out")) for name in ("look", "open", "colour")]
        if number % 3 == 0:
            turns = [turns[0].model_copy(update={"images": [0]}), turns[1], turns[2].model_copy(update={"images": [1]})]
        else:
            images = images[:1]
        if number == 8:
            turns[1] = Turn(user=LONG)
        rows.append(Dialogue(id=f"d{number}", source="t", kind="benign", strategy=None, images=images, turns=turns))
    write_jsonl(folder / "dys.jsonl", rows)
    return tmp_path


@pytest.mark.integration
def test_served_student_is_played_judged_and_reported(root):
    """Also: the same weights with an absurd generation_config.json answer as without it; each turn has its own seed."""
    config = yaml.safe_load(Path("configs/evaluation/miniature.yaml").read_text(encoding="utf-8"))
    config["models"] = {name: {"checkpoint": f"${{root}}/{name}"} for name in ("base", "odd")}
    config["sampling"]["max_tokens"] = 16
    config["serving"] |= {"max_model_len": 256}
    config["report"]["paper_rows"] = {}
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "evaluation.run", str(path), f"root={root}"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=6000)
    assert first.returncode == 0, first.stderr[-2000:]
    base, odd = (
        [
            turn.assistant
            for row in read_jsonl(root / f"evaluation/{name}/answers.jsonl", Dialogue)
            for turn in row.turns
        ]
        for name in ("base", "odd")
    )
    same = sum(left == right for left, right in zip(base, odd, strict=True))
    assert same >= 0.8 * len(base), "other batches round otherwise, which now and then is another word"
    assert max(len(answer.split()) for answer in odd if answer) > 1, "max_new_tokens of the file is 1"
    used = json.loads((root / "evaluation/odd/infer.json").read_text())["facts"]["config"]["sampling"]
    assert used | {"top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0} == used
    answers = {row.id: row for row in read_jsonl(root / "evaluation/base/answers.jsonl", Dialogue)}
    too_long = answers.pop("d8")
    assert too_long.meta["end"] == "context_full"
    assert [turn.assistant is None for turn in too_long.turns] == [False, True, True]
    assert all(turn.assistant is not None for row in answers.values() for turn in row.turns)
    verdicts = {row.id: row for row in read_verdicts(root / "evaluation/base/verdicts.jsonl")}
    assert len(verdicts) == 8 * 3 + 2
    assert verdicts["d8:2"].unscored == "no answer: context_full"
    assert sum(row.scores is None for row in verdicts.values()) == 1
    base = json.loads((root / "evaluation/summary.json").read_text())["models"]["base"]
    assert (base["n_dialogues"], base["unscored"], base["ends"]) == (9, 1, {"complete": 8, "context_full": 1})
    files = {path: path.read_bytes() for path in (root / "report").rglob("*") if path.is_file()}
    second = subprocess.run(command, capture_output=True, text=True, timeout=6000)
    assert second.stdout.count("nothing to do") == 5
    assert files == {path: path.read_bytes() for path in (root / "report").rglob("*") if path.is_file()}
