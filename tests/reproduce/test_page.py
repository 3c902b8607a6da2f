"""What a page is made of: the run's own seeds, and nothing that was made in another way."""

import json
from pathlib import Path

import pytest

from reproduce import run
from reproduce.page import write_results
from safer_steer.store import write_jsonl


def evaluated(folder: Path, turns: list[dict] | None = None) -> None:
    """One dialogue of one model, as evaluation leaves it."""
    row = {"id": "a", "benchmark": "dys", "single_turn": False, "kind": "red_team", "scored": 5, "unscored": 0}
    row |= {"safe": True, "help": False, "over_refused": None, "last_turn": 5, "failed": False}
    write_jsonl(folder / "dialogues.jsonl", [row])
    write_jsonl(folder / "answers.jsonl", [{"id": "a", "turns": turns or []}])
    write_jsonl(folder / "verdicts.jsonl", [])


def test_the_page_has_the_runs_own_seeds(tmp_path):
    turn = {"user": "what is it ?", "template": "what is it ?", "scores": {"safety": 9}}
    rollouts = [
        {"meta": {"masked": False, "group": "g"}, "turns": [turn | {"meta": {"reward": r}}]} for r in (1.0, 0.5)
    ]
    for seed in (0, 1):
        evaluated(tmp_path / f"seed_{seed}" / "evaluation" / "base" / "model")
        write_jsonl(tmp_path / f"seed_{seed}" / "grpo" / "trajectories.jsonl", rollouts)
    claims, pages = write_results(tmp_path, 1, write_docs=False)
    assert "missing cells: grpo" in json.dumps(claims)
    assert "Of 2 rollouts" in pages[1].read_text(encoding="utf-8")
    write_results(tmp_path, 2, write_docs=False)
    assert "Of 4 rollouts" in pages[1].read_text(encoding="utf-8")


@pytest.mark.parametrize("options", [["--only", "base"], ["--phase"]])
def test_a_cell_of_another_way_is_refused_before_anything_is_started(tmp_path, monkeypatch, capsys, options):
    """It would stand in the tables next to what this run makes."""
    made = tmp_path / "seed_0" / "sft"
    (tmp_path / "seed_0" / "steps").mkdir(parents=True)
    (tmp_path / "seed_0" / "steps" / "sft.json").write_text('{"command": ["another"]}', encoding="utf-8")
    made.mkdir()
    (made / "run.json").write_text('{"status": "finished"}', encoding="utf-8")
    monkeypatch.setattr(run, "Runner", None)
    assert run.main(["miniature", *options, "--root", str(tmp_path)]) == 2
    assert "seed_0/sft was made with another command" in capsys.readouterr().err
