import json

import pytest

from data_construction.stats.attacks import attack_stats
from data_construction.stats.counts import counts, row_table
from data_construction.stats.tables import attack_table, cost_table
from data_steps import run_step
from safer_steer.dialogue import Dialogue, Turn


def dialogue(number: int, turns: int, kind: str = "benign", **meta) -> Dialogue:
    strategy = "fiction" if kind == "red_team" else None
    return Dialogue(
        id=str(number), source="s", kind=kind, strategy=strategy, images=[], turns=[Turn(user="u")] * turns, meta=meta
    )


def test_counts_by_hand():
    table = row_table([dialogue(1, 2), dialogue(2, 4), dialogue(3, 3, "red_team"), dialogue(4, 4)])
    assert counts(table) == {
        "size": 4,
        "turns_min": 2,
        "turns_max": 4,
        "turns_mean": 3.25,
        "turns": {"2": 1, "3": 1, "4": 2},
        "kind": {"benign": 3, "red_team": 1},
        "source": {"s": 4},
        "strategy": {"fiction": 1},
    }
    empty = counts(row_table([]))
    assert empty["size"] == 0
    assert "turns_mean" not in empty


def test_attack_rates_count_tries_with_a_verdict():
    won = dialogue(1, 3, "red_team", technique="t", success_turn=2)
    lost = {"reason": "attack failed", "strategy": "fiction", "technique": "t"}
    other = {"reason": "attack failed", "strategy": "fiction", "technique": "v"}
    broken = {"reason": "target: filtered", "strategy": "fiction", "technique": "t"}
    table = attack_stats([won, dialogue(2, 2)], [lost, other, broken, {"reason": "no picture"}])
    assert table["strategy"] == {"fiction": {"tries": 3, "successes": 1, "rate": 0.333}}
    assert table["technique"] == {
        "t": {"tries": 2, "successes": 1, "rate": 0.5},
        "v": {"tries": 1, "successes": 0, "rate": 0.0},
    }
    assert table["pair"]["fiction + v"]["tries"] == 1
    assert table["success_turn"] == {"2": 1}
    assert table["without_verdict"] == {"target: filtered": 1}
    assert "| fiction | 3 | 1 | 33.3 % |" in attack_table(table["strategy"], "Strategy")


@pytest.mark.parametrize(("usd", "shown"), [(1234.5, "1,234.50"), (0.0, "0.00"), (None, "?")])
def test_an_unknown_price_is_not_zero(usd, shown):
    usage = {"red": {"model": "m", "calls": 3, "cached": 0, "tokens_in": 1000, "tokens_out": 5, "usd": usd}}
    assert cost_table(usage).splitlines()[-1] == f"| red | m | 3 | 0 | 1,000 | 5 | {shown} |"


def test_stage_one_writes_its_stats(make_seeds, make_config):
    path = make_seeds("train", ["weak a", "strong b"])
    bench = make_seeds("bench", ["weak c"], first=2)
    sources = {"train": {"reader": "jsonl", "path": str(path)}}
    sources["bench"] = {"reader": "jsonl", "path": str(bench), "split": "bench"}
    config = make_config(sources)
    run_step("stage1", config)
    stats = json.loads((config.folder / "stats.stage1.json").read_text())
    assert stats["counts"]["in"] == stats["counts"]["kept"] + stats["counts"]["rejected"] == 9
    assert [stats["splits"][name]["size"] for name in ("train candidates", "bench candidates")] == [5, 3]
    assert sum(entry["tries"] for entry in stats["red_team"]["strategy"].values()) == 3
    assert sum(entry["successes"] for entry in stats["red_team"]["technique"].values()) == 2
    assert set(stats["usage"]) == {"generator", "target", "evaluator"}
    text = (config.folder / "stats.stage1.md").read_text()
    assert "| Stage I, train | 5 |" in text
    assert "| generator |" in text
    assert (config.folder / "turns.stage1.png").read_bytes().startswith(b"\x89PNG")
