import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_construction.assemble.select import Pools, quotas, select, without_shared
from data_construction.config import Split
from data_construction.run import main
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.errors import UserError
from safer_steer.store import read_jsonl

KINDS = ("benign", "obfuscated", "red_team")


def dialogue(number: int, kind: str = "benign", picture: int | None = None, split: str = "train") -> Dialogue:
    return Dialogue(
        id=f"{number:04}{kind}",
        source="s",
        kind=kind,
        strategy=None,
        images=[f"images/{number if picture is None else picture}.png"],
        turns=[Turn(user="u"), Turn(user="v")],
        meta={"seed": f"train/{number}", "split": split, "benchmark": "b"},
    )


@given(st.integers(0, 500), st.dictionaries(st.sampled_from(KINDS), st.floats(0.01, 10), min_size=1))
def test_quotas_add_up_and_are_within_one_of_their_share(size, mix):
    result = quotas(size, mix)
    assert sum(result.values()) == size
    assert all(abs(result[kind] - size * mix[kind] / sum(mix.values())) < 1 for kind in mix)


def test_selection_keeps_the_mix_says_what_is_missing_and_ignores_input_order():
    rows = [dialogue(i, kind) for i in range(20) for kind in KINDS[:2]]
    split = Split(size=20, mix={"benign": 1, "obfuscated": 2, "red_team": 1})
    chosen, short = select(rows, split, 0, "x")
    assert Counter(row.kind for row in chosen) == {"benign": 5, "obfuscated": 10}
    assert short == {"red_team": 5}
    assert select(rows[::-1], split, 0, "x")[0] == chosen
    assert select(rows, split, 1, "x")[0] != chosen


def test_pools_split_by_picture_and_never_use_a_bench_picture():
    pools = Pools(frozenset({"images/3.png"}), 0.5, 0)
    rows = [dialogue(i, kind, picture=i // 2) for i in range(200) for kind in KINDS]
    by_pool: dict[str, set[str]] = {}
    for row in rows:
        by_pool.setdefault(pools.pool(row), set()).update(row.images)
    assert not by_pool["sft"] & by_pool["rl"]
    assert by_pool["none"] == {"images/3.png"}
    assert 30 < len(by_pool["rl"]) < 70
    assert pools.pool(dialogue(1, split="bench")) == "bench"


def test_without_shared_checks_seeds_and_pictures():
    others = [dialogue(1), dialogue(2)]
    rows = [dialogue(1, "red_team", picture=9), dialogue(5, picture=2), dialogue(6)]
    assert [row.meta["seed"] for row in without_shared(rows, others)] == ["train/6"]


@pytest.fixture
def config(make_seeds, make_config):
    """Train and bench seeds; bench seed 0 has the picture of a train seed."""
    train = make_seeds("train", [f"weak {i}" for i in range(16)])
    bench = make_seeds("bench", [f"weak {i}" for i in range(15, 18)], first=15, meta={"benchmark": "vls"})
    other = make_seeds("other", ["weak x"], first=40)
    sources = {
        "train": {"reader": "jsonl", "path": str(train)},
        "bench": {"reader": "jsonl", "path": str(bench), "split": "bench"},
        "other": {"reader": "jsonl", "path": str(other), "split": "bench", "benchmark": "dys"},
    }
    splits = {
        "rl_share": 0.5,
        "sft": {"size": 6},
        "rl": {"size": 5, "mix": {"benign": 0.2, "obfuscated": 0.4, "red_team": 0.4}},
        "bench": {"size": None},
    }
    return make_config(sources, assemble=splits)


@pytest.fixture
def small(make_seeds, make_config):
    """Two benign seeds, all for SFT."""
    sources = {"train": {"reader": "jsonl", "path": str(make_seeds("train", ["a", "b"]))}}
    splits = {"rl_share": 0, "sft": {"mix": {"benign": 1}}, "rl": {"size": 0}, "bench": {"size": 0}}
    return make_config(sources, kinds=["benign"], assemble=splits)


def rows_of(path: Path) -> list[Dialogue]:
    return list(read_jsonl(path, Dialogue))


def test_splits_are_disjoint_complete_and_read_back(config, double):
    main(config)
    folder = config.folder
    sft, rl = rows_of(folder / "steer_sft.jsonl"), rows_of(folder / "steer_rl.jsonl")
    bench = {path.stem: rows_of(path) for path in (folder / "steer_bench").glob("*.jsonl")}
    assert set(bench) == {"vls", "dys"}
    assert (len(bench["vls"]), len(bench["dys"])) == (9, 3)
    assert Counter(row.kind for row in sft) == {"benign": 2, "obfuscated": 2, "red_team": 2}
    assert Counter(row.kind for row in rl) == {"benign": 1, "obfuscated": 2, "red_team": 2}

    pictures = [{p for row in rows for p in row.images} for rows in (sft, rl, [*bench["vls"], *bench["dys"]])]
    assert not pictures[0] & pictures[1]
    assert not (pictures[0] | pictures[1]) & pictures[2]
    assert not {row.meta["seed"] for row in sft} & {row.meta["seed"] for row in rl}
    assert "train/s15" not in {row.meta["seed"] for row in [*sft, *rl]}

    assert all(turn.assistant and turn.scores and turn.template for row in sft for turn in row.turns)
    assert all(turn.assistant is None for rows in (rl, *bench.values()) for row in rows for turn in row.turns)
    assert all((folder / "steer_bench" / row.images[0]).is_file() for rows in bench.values() for row in rows)
    assert not any("transcript" in row.meta for row in [*sft, *rl])
    stats = json.loads((folder / "stats.json").read_text())
    assert {name: stats["splits"][name]["size"] for name in ("sft", "rl", "bench")} == {"sft": 6, "rl": 5, "bench": 12}
    # Of the three rows of that train seed one repeats a bench row word for word: it went as a duplicate.
    assert stats["train_rows_with_a_bench_picture"] == 2
    (twin,) = read_jsonl(folder / "duplicates.jsonl")
    assert (twin["kind"], twin["of_kind"], twin["task"]) == ("benign", "benign", "stage1/train/s15/benign")
    assert len(stats["keep_rule"]["thresholds"]) == 25


def test_a_finished_run_calls_nothing_and_other_sizes_need_no_new_calls(small, double):
    main(small)
    before = {path: path.read_bytes() for path in small.folder.glob("*.jsonl")}
    asked = len(double.requests)
    main(small)
    assert len(double.requests) == asked
    assert {path: path.read_bytes() for path in small.folder.glob("*.jsonl")} == before
    one = small.assemble.model_copy(update={"sft": small.assemble.sft.model_copy(update={"size": 1})})
    main(small.model_copy(update={"assemble": one}))
    assert len(rows_of(small.folder / "steer_sft.jsonl")) == 1
    assert len(double.requests) == asked


def test_other_stage_settings_refuse_the_folder(small):
    main(small)
    with pytest.raises(UserError, match="seed 0 -> 1"):
        main(small.model_copy(update={"seed": 1}))


def test_answered_rows_become_sft_without_stage_two(make_seeds, make_config, double):
    sources = {"train": {"reader": "jsonl", "path": str(make_seeds("train", ["a", "b"], answer="42"))}}
    splits = {"rl_share": 0, "sft": {"origin": "answered"}, "rl": {"size": 0}, "bench": {"size": 0}}
    config = make_config(sources, kinds=["benign"], steps=["stage1", "assemble"], assemble=splits)
    main(config)
    rows = rows_of(config.folder / "steer_sft.jsonl")
    assert len(rows) == 2
    assert all(turn.assistant for row in rows for turn in row.turns)
    assert not (config.folder / "steer_rl.jsonl").exists()


def test_an_empty_split_is_an_error(make_seeds, make_config):
    sources = {"train": {"reader": "jsonl", "path": str(make_seeds("train", ["a", "b"]))}}
    splits = {"rl_share": 0, "sft": {"size": 2, "mix": {"benign": 1}}, "rl": {"size": 5}, "bench": {"size": 0}}
    with pytest.raises(UserError, match=r"assemble\.rl: none of 5 rows"):
        main(make_config(sources, kinds=["benign"], assemble=splits))
