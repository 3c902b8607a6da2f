"""Stage I against a teacher that fails in every way it can: no row is lost without a reason, none is there twice, no
score is made up.
"""

from collections import Counter
from pathlib import Path

import pytest

from data_construction.config import DataConfig
from data_construction.red_team.attack import UNSCORED
from data_steps import run_step
from miniature import teacher
from miniature.faults import FaultPlan
from miniature.rules import leak_score, read_answer
from miniature.seeds import SeedsConfig, make_seeds
from miniature.teacher import create_app
from miniature.world import read_picture
from safer_steer.images import load_image
from safer_steer.store import read_jsonl, write_jsonl
from safer_steer.verdict import Outcome

SEEDS = 24
RATES = {"rate_limit": 0.1, "server_error": 0.05, "hang": 0.02, "reset": 0.02, "fenced": 0.1, "torn": 0.05}
RATES |= {"out_of_range": 0.03, "content_filter": 0.03, "empty": 0.03}


def make_rows(tmp_path, name: str, url: str) -> tuple[DataConfig, dict[str, dict], dict[str, dict]]:
    """Runs Stage I; returns config, kept rows by task and rejects by task."""
    seeds = SeedsConfig(root=str(tmp_path), seed=9, train=SEEDS, bench=1, sealed_share=0.75, allowed_share=0.2)
    path = tmp_path / "world" / "train" / "seeds.jsonl"
    write_jsonl(path, make_seeds(seeds, "train"))
    role = {"base_url": url, "temperature": 0.0, "timeout_s": 1.5}
    models = {"generator": "mini-generator", "target": "mini-blue", "evaluator": "mini-evaluator"}
    config = DataConfig.model_validate(
        {
            "root": str(tmp_path / name),
            "steps": ["stage1"],
            "sources": {"train": {"reader": "jsonl", "path": str(path)}},
            "turns": {kind: {"min": 2, "max": 5} for kind in ("benign", "obfuscated", "red_team")},
            "red_team": {"strategies_per_seed": 1, "min_rewrite_words": 1},
            "quality": {"picture_words": [], "near_duplicates": {"among": "same_picture"}},
            "roles": {name: role | {"model": model} for name, model in models.items()},
            "concurrency": 24,
            "max_transport_rate": 1.0,
        }
    )
    run_step("stage1", config)
    rows = {row["meta"]["task"]: row for row in read_jsonl(config.folder / "dialogues.jsonl")}
    rejects = {row["id"]: row for row in read_jsonl(config.folder / "rejects.jsonl")}
    rejects |= {row["id"]: row for row in read_jsonl(config.folder / "attack_failures.jsonl")}  # with their transcripts
    for name in ("dialogues.jsonl", "rejects.jsonl", "attack_failures.jsonl"):
        ids = Counter(row["id"] for row in read_jsonl(config.folder / name))
        assert set(ids.values()) <= {1}, name
    return config, rows, rejects


@pytest.fixture
def two_runs(serve, tmp_path, monkeypatch):
    """The same Stage I without and with faults."""
    monkeypatch.setattr(teacher, "RETRY_AFTER_S", "0.02")
    clean = make_rows(tmp_path, "clean", serve(create_app()))
    return clean, make_rows(tmp_path, "faulty", serve(create_app(FaultPlan(RATES))))


def played(row: dict) -> list[dict]:
    return row.get("meta", row).get("transcript", [])


def disturbed(row: dict, picture: Path) -> bool:
    """True when an answer of the target was empty, torn or fenced: another play than without faults, honestly so."""
    scene = read_picture(load_image(picture))
    return any(read_answer(turn["assistant"], scene).sentence is None for turn in played(row))


def test_faults_cost_rows_only_for_an_honest_reason(two_runs):
    (_, rows, rejects), (config, faulty_rows, faulty_rejects) = two_runs
    assert rows.keys() | rejects.keys() == faulty_rows.keys() | faulty_rejects.keys()
    assert not faulty_rows.keys() & faulty_rejects.keys()
    assert len(rows) + len(rejects) == 3 * SEEDS

    pictures = {}  # of each attack; a seed's may be an injected one
    for seed in read_jsonl(config.folder / "seeds.jsonl"):
        for task in faulty_rows | faulty_rejects:
            if task.startswith(f"stage1/{seed['id']}/red_team"):
                pictures[task] = config.folder / (seed["injected"] or seed["seed"])["image"]

    honest = {Outcome.REFUSED, Outcome.FILTERED, Outcome.TRANSPORT, Outcome.UNPARSED}
    lost, gained = rows.keys() - faulty_rows.keys(), faulty_rows.keys() - rows.keys()
    for task in lost:
        reject = faulty_rejects[task]
        has_reason = reject["outcome"] in honest or reject["reason"] == UNSCORED
        assert has_reason or disturbed(reject, pictures[task]), reject
    for task in gained:
        assert disturbed(faulty_rows[task], pictures[task]), faulty_rows[task]
    for task in rows.keys() & faulty_rows.keys():
        assert faulty_rows[task]["id"] == rows[task]["id"]
        assert [turn["user"] for turn in faulty_rows[task]["turns"]] == [turn["user"] for turn in rows[task]["turns"]]
    assert 0 < len(lost) < len(rows) / 2, Counter(faulty_rejects[task]["reason"] for task in lost)

    scored = 0
    for task, picture in pictures.items():
        for turn in played((faulty_rows | faulty_rejects)[task]):
            if turn["leak"] is not None:
                assert turn["leak"] == leak_score(
                    [], turn["user"], turn["assistant"], read_picture(load_image(picture))
                )
                scored += 1
    assert scored > SEEDS
