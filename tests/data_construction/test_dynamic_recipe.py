"""The recipe of a set like STEER-DyS: scenarios in, a benchmark out, also in the authors' format."""

from pathlib import Path

from data_construction.config import DataConfig
from data_construction.pipeline import main
from data_construction.released.files import write_released
from evaluation.benchmarks import benchmark, read_benchmarks
from safer_steer.config import load_config
from safer_steer.store import read_jsonl

RECIPE = Path(__file__).parents[2] / "configs" / "data_construction" / "dynamic.yaml"


def test_scenarios_become_a_benchmark(make_seeds, double, tmp_path):
    path = make_seeds("mine", ["weak box", "strong star"], meta={"category": "sealed objects"})
    roles = [f"roles.{role}.{key}" for role in ("generator", "target", "evaluator") for key in ("base_url", "model")]
    values = [f"{name}={double.url if name.endswith('url') else name.split('.')[1]}" for name in roles]
    sizes = [
        "red_team.min_rewrite_words=1",
        "red_team.strategies_per_seed=2",
        "assemble.bench.size=4",
        "quality.near_duplicates=null",
    ]
    sizes += ["red_team.min_rewrite_words=1"]
    sizes += ["turns.red_team={min: 2, max: 4, weights: null}"]  # the teacher's double repeats itself in longer scripts
    places = [f"root={tmp_path / 'out'}", f"sources.scenarios.path={path}", "prices=null"]
    main(config := load_config(DataConfig, str(RECIPE), [*places, *values, *sizes]))
    played = read_benchmarks([str(config.folder / "steer_bench" / "*.jsonl")])
    assert benchmark(played[0].benchmark) == benchmark("STEER-DyS")
    assert [item.dialogue.kind for item in played].count("red_team") == 2
    for item in played:
        assert item.dialogue.kind == "obfuscated" or "weak" in item.dialogue.turns[-1].user, "an attack that failed"
    assert not (config.folder / "steer_sft.jsonl").exists()
    write_released("bench", [config.folder / "steer_bench" / "dys.jsonl"], tmp_path / "theirs")
    rows = list(read_jsonl(tmp_path / "theirs" / "steer_dys.jsonl"))
    risks = {len(row["risk_trajectory"]) - len(row["messages_fixed"]) for row in rows if row["kind"] == "red_team"}
    assert risks == {0}
    assert {row["category"] for row in rows} == {"sealed objects"}
