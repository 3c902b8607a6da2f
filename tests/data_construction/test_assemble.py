import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_construction.assemble.choose import SplitDuplicates
from data_construction.assemble.config import Split
from data_construction.assemble.facts import RowFacts, row_facts
from data_construction.assemble.select import Pools, quotas, select
from data_construction.config import NearDuplicates
from data_construction.pipeline import main
from safer_steer.dialogue import Dialogue, Turn, stable_hash
from safer_steer.errors import UserError
from safer_steer.store import dump_row, read_jsonl, write_jsonl

KINDS = ("benign", "obfuscated", "red_team")


def facts(number: int, kind: str = "benign", picture: int | None = None, split: str = "train", turns=2) -> RowFacts:
    row = dialogue(number, kind, picture, split, turns=[Turn(user="u")] * turns)
    return RowFacts.of(row, Path("rows.jsonl"), 0)


def dialogue(
    number: int, kind: str = "benign", picture: int | None = None, split: str = "train", **changes
) -> Dialogue:
    row = Dialogue(
        id=f"{number:04}{kind}",
        source="s",
        kind=kind,
        strategy=None,
        images=[f"images/{number if picture is None else picture}.png"],
        turns=[Turn(user="u"), Turn(user="v")],
        meta={"seed": f"train/{number}", "split": split, "benchmark": "b"},
    )
    return row.model_copy(update=changes)


@given(st.integers(0, 500), st.dictionaries(st.sampled_from(KINDS), st.floats(0.01, 10), min_size=1))
def test_quotas_add_up_and_are_within_one_of_their_share(size, mix):
    result = quotas(size, mix)
    assert sum(result.values()) == size
    assert all(abs(result[kind] - size * mix[kind] / sum(mix.values())) < 1 for kind in mix)


def test_selection_keeps_the_mix_says_what_is_missing_and_ignores_input_order():
    rows = [facts(i, kind) for i in range(20) for kind in KINDS[:2]]
    split = Split(size=20, mix={"benign": 1, "obfuscated": 2, "red_team": 1})
    chosen = select(rows, split, 0, "x")
    assert Counter(row.kind for row in chosen.rows) == {"benign": 5, "obfuscated": 10}
    assert chosen.short == {"red_team": 5}
    assert chosen.not_needed == 25
    assert select(rows[::-1], split, 0, "x").rows == chosen.rows
    assert select(rows, split, 1, "x").rows != chosen.rows


LENGTHS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(2, 10)), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 40), st.floats(2, 10), st.integers(0, 3))
def test_a_split_has_its_size_and_its_mean_turns_whenever_the_candidates_allow_them(pool, size, target, odd):
    """Against the shortest and the longest selection; odd ones are left out by a rule."""
    rows = [facts(number, kind, turns=turns) for number, (kind, turns) in enumerate(pool)]
    rules = [lambda row: "odd" if odd and int(row.id[:4]) % 4 == odd else ""]
    split = Split(size=size, mix={"benign": 1, "obfuscated": 1.5, "red_team": 1.5}, mean_turns=target)
    chosen = select(rows, split, 0, "x", rules)

    wanted, shortest, longest, step = quotas(size, split.mix), [], [], 0
    for kind in KINDS:
        lengths = sorted(row.turns for row in rows if row.kind == kind and not rules[0](row))
        number = min(wanted[kind], len(lengths))
        assert sum(row.kind == kind for row in chosen.rows) == number
        assert chosen.short.get(kind, 0) == wanted[kind] - number
        shortest, longest = shortest + lengths[:number], longest + lengths[len(lengths) - number :]
        step = max(step, lengths[-1] - lengths[0] if lengths else 0)
    assert select(rows[::-1], split, 0, "x", rules) == chosen
    assert len(chosen.rows) + len(chosen.left_out) + chosen.not_needed == len(rows)
    if not (count := len(chosen.rows)):
        return
    low, high = sum(shortest) / count, sum(longest) / count
    if low <= target <= high:
        assert abs(chosen.mean_turns - target) <= max(0.005, step / 2 / count)
        assert not chosen.note
    else:
        assert chosen.mean_turns == pytest.approx(low if target < low else high)
        assert bool(chosen.note) == (abs(chosen.mean_turns - target) > 0.005)


def test_a_mean_changes_the_lengths_no_more_than_it_must():
    """All lengths stay in it, and more of those on the side of the target."""
    made = [dialogue(number, turns=[Turn(user="u")] * (2 + number % 9)) for number in range(3000)]
    named = [row.model_copy(update={"id": stable_hash(row.id)}) for row in made]
    rows = [RowFacts.of(row, Path("rows.jsonl"), 0) for row in named]
    chosen = select(rows, Split(size=600, mix={"benign": 1}, mean_turns=7.5), 0, "x").rows
    numbers = Counter(row.turns for row in chosen)
    assert abs(sum(row.turns for row in chosen) / 600 - 7.5) <= 0.005
    assert sorted(numbers) == [*range(2, 11)]
    assert numbers[2] < numbers[6] < numbers[10]
    assert abs(sum(row.turns for row in chosen[:300]) / 300 - 7.5) < 0.5, "rows are not sorted by length"


def test_a_mean_out_of_reach_is_said_with_what_the_candidates_allow(small, capsys):
    main(small)
    sft = small.assemble.sft.model_copy(update={"size": 2, "mean_turns": 9.5})
    main(small.model_copy(update={"assemble": small.assemble.model_copy(update={"sft": sft})}))
    stats = json.loads((small.folder / "stats.json").read_text())
    most = stats["splits"]["sft"]["turns_mean"]
    note = f"STEER-SFT: {most:.2f} turns on average is the most that the candidates allow, 9.50 was asked for"
    assert note in capsys.readouterr().out
    assert note in (small.folder / "stats.md").read_text()
    with pytest.raises(ValidationError, match="mean_turns needs a size"):
        Split(mean_turns=6.35)


def test_rules_leave_rows_out_and_are_asked_only_while_there_is_room():
    asked = []

    def rule(row: RowFacts) -> str:
        asked.append(row.id)
        return "odd" if int(row.seed.removeprefix("train/")) % 2 else ""

    rows = [facts(i) for i in range(40)]
    chosen = select(rows, Split(size=5, mix={"benign": 1}), 0, "x", [rule, lambda row: ""])
    assert all(int(row.seed.removeprefix("train/")) % 2 == 0 for row in chosen.rows)
    assert len(chosen.rows) == 5
    assert len(asked) == 5 + len(chosen.left_out) == 40 - chosen.not_needed
    assert chosen.reasons() == {"odd": len(chosen.left_out)}


def test_pools_split_by_picture_and_never_use_a_bench_picture():
    pools = Pools(frozenset({"images/3.png"}), 0.5, 0)
    rows = [facts(i, kind, picture=i // 2) for i in range(200) for kind in KINDS]
    by_pool: dict[str, set[str]] = {}
    for row in rows:
        by_pool.setdefault(pools.pool(row), set()).update(row.images)
    assert not by_pool["sft"] & by_pool["rl"]
    assert by_pool["none"] == {"images/3.png"}
    assert 30 < len(by_pool["rl"]) < 70
    assert pools.pool(facts(1, split="bench")) == "bench"


def test_facts_find_their_rows_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [dialogue(i, turns=[Turn(user=f"{i} zoë \u2028 図"), Turn(user="v")]) for i in range(5)]
    lines = [dump_row(row).encode() + b"\n" for row in rows]
    path.write_bytes(b"".join([*lines[:2], b"\n", *lines[2:], b'{"id": "torn']))
    found = list(row_facts(path))
    assert [item.id for item in found] == [row.id for row in rows]
    assert [item.read() for item in found[::-1]] == rows[::-1]
    assert not any(item.answered or item.measures for item in found)
    path.write_bytes(lines[0] + b"{}\n")
    with pytest.raises(UserError, match=r"rows\.jsonl:2: not a valid row"):
        list(row_facts(path))
    with pytest.raises(UserError, match="run the stage that writes it"):
        list(row_facts(tmp_path / "none.jsonl"))


LONG = [f"could you tell me more about part {i} of the thing that is shown in the picture here ?" for i in range(4)]


def written(path: Path, *rows: Dialogue) -> list[RowFacts]:
    write_jsonl(path, rows)
    return list(row_facts(path))


@pytest.mark.parametrize(
    ("users", "settings", "reason"),
    [
        ([*LONG[:3], LONG[3].replace("?", "now ?")], NearDuplicates(), "near duplicate of sft"),
        ([f"template of {text}" for text in LONG], NearDuplicates(), "near duplicate of sft"),
        (["what colour is it ?", "who may have drawn it , and why ?"], NearDuplicates(), ""),
        (LONG, None, ""),
    ],
)
def test_a_row_that_says_what_another_split_says_is_left_out(tmp_path, users, settings, reason):
    turns = [Turn(user=text, template=f"template of {text}") for text in LONG]
    sft = written(tmp_path / "sft.jsonl", dialogue(1, turns=turns))
    (row,) = written(tmp_path / "rl.jsonl", dialogue(2, turns=[Turn(user=text) for text in users]))
    duplicates = SplitDuplicates(settings)
    duplicates.add(sft, "sft")
    assert duplicates.rule(row) == reason


def test_the_same_pictures_and_words_are_a_duplicate_without_near_ones(tmp_path):
    turns = [Turn(user=text) for text in LONG]
    bench = written(tmp_path / "bench.jsonl", dialogue(1, turns=turns))
    same = dialogue(2, picture=1, turns=[Turn(user=text.upper()) for text in LONG])
    (row,) = written(tmp_path / "rl.jsonl", same)
    duplicates = SplitDuplicates(None)
    duplicates.add(bench, "bench")
    assert duplicates.rule(row) == "duplicate of bench"


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
    page = (folder / "stats.md").read_text()
    mean = f"{stats['splits']['sft']['turns_mean']:.2f}"
    assert f"| STEER-SFT | 6 | 2-4 | {mean} | 12,934 | 2-10 | 6.35 |" in page
    assert "| STEER-SFT, STEER-RL | has a picture of a bench seed | 2 |" in page
    assert "| STEER-SFT | no room in its quota, not checked |" in page
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


def test_other_thresholds_need_no_new_calls_and_say_who_left(make_seeds, make_config, double):
    sources = {"train": {"reader": "jsonl", "path": str(make_seeds("train", ["fine", "unsafe", "dull"]))}}
    splits = {"rl_share": 0, "sft": {"mix": {"benign": 1}}, "rl": {"size": 0}, "bench": {"size": 0}}
    config = make_config(sources, kinds=["benign"], assemble=splits)

    def fault(name, payload, body):
        dull = name == "turn_scores" and "dull" in payload["user"]
        scored = {"scores": {"safety": 9, "usefulness": 4, "faithfulness": 9}, "rationale": "r"}
        return double.completion(json.dumps(scored)) if dull else None

    double.fault = fault
    main(config)
    folder, asked = config.folder, len(double.requests)
    assert len(rows_of(folder / "steer_sft.jsonl")) == 1
    left = {row["reason"] for row in read_jsonl(folder / "left_out.jsonl")}
    both = "keep rule: safety below threshold and usefulness below threshold"  # unsafe: usefulness is locked at 1
    assert left == {both, "keep rule: usefulness below threshold"}
    assert "**1 (33%)**" in (folder / "keep_rule.md").read_text()
    main(config.model_copy(update={"bootstrap": config.bootstrap.model_copy(update={"tau_help": 3.5})}))
    assert len(rows_of(folder / "steer_sft.jsonl")) == 2
    page = (folder / "keep_rule.md").read_text()
    assert "bootstrap.tau_help=3.5 (in bold)" in page
    assert "**2 (67%)**" in page
    assert "| benign | 2 | 0 | 0 | 1 |" in page
    assert len(double.requests) == asked


def left_out(config) -> Counter:
    return Counter((row["split"], row["reason"]) for row in read_jsonl(config.folder / "left_out.jsonl"))


def test_answered_rows_become_sft_without_stage_two(make_seeds, make_config, double):
    sources = {
        "with": {"reader": "jsonl", "path": str(make_seeds("with", ["a", "b"], answer="42"))},
        "without": {"reader": "jsonl", "path": str(make_seeds("without", ["c"], first=2)), "kinds": ["benign"]},
    }
    sft = {"origin": "answered", "mix": {"benign": 1}}
    splits = {"rl_share": 0, "sft": sft, "rl": {"size": 0}, "bench": {"size": 0}}
    config = make_config(sources, kinds=["benign", "obfuscated"], steps=["stage1", "assemble"], assemble=splits)
    main(config)
    rows = rows_of(config.folder / "steer_sft.jsonl")
    assert len(rows) == 2
    assert all(turn.assistant for row in rows for turn in row.turns)
    assert not (config.folder / "steer_rl.jsonl").exists()
    assert left_out(config) == {("sft", "no answers"): 1, ("sft", "kind not in its mix"): 2}
    stats = json.loads((config.folder / "stats.json").read_text())
    assert stats["left_out"]["sft"] == {"kind not in its mix": 2, "no answers": 1}


def test_answers_that_are_never_made_are_not_waited_for(make_config):
    sources = {"train": {"reader": "jsonl", "path": "x"}}
    never = {"kinds": ["benign"], "expand": {"benign_answers": "never"}}
    with pytest.raises(ValidationError, match=r"expand\.benign_answers=never makes none"):
        make_config(sources, assemble={"sft": {"origin": "answered"}}, **never)
    assert make_config(sources, assemble={"sft": {"origin": "answered", "size": 0}}, **never)
    assert make_config(sources, assemble={"sft": {"origin": "answered"}}, dialogues={"path": "x"}, **never)


def test_rows_that_were_bootstrapped_under_another_share_are_counted(config):
    main(config)
    splits = config.assemble.model_copy(update={"rl_share": 0.7})
    main(config.model_copy(update={"assemble": splits, "steps": ["assemble"]}))
    assert left_out(config)["sft", "set aside for another split"] > 0
    assert len(rows_of(config.folder / "steer_sft.jsonl")) > 0


def test_other_near_duplicates_and_other_seeds_make_the_splits_again(small, capsys):
    main(small)
    again = small.model_copy(update={"steps": ["assemble"]})
    main(again)
    assert "already finished" in capsys.readouterr().out
    quality = small.quality.model_copy(update={"near_duplicates": NearDuplicates()})
    main(again.model_copy(update={"quality": quality}))
    assert "already finished" not in capsys.readouterr().out
    main(again)
    seeds = small.folder / "seeds.jsonl"
    seeds.write_text(seeds.read_text() + "\n")
    capsys.readouterr()
    main(again)
    assert "already finished" not in capsys.readouterr().out


def test_an_empty_split_is_an_error(make_seeds, make_config):
    sources = {"train": {"reader": "jsonl", "path": str(make_seeds("train", ["a", "b"]))}}
    splits = {"rl_share": 0, "sft": {"size": 2, "mix": {"benign": 1}}, "rl": {"size": 5}, "bench": {"size": 0}}
    with pytest.raises(UserError, match=r"assemble\.rl: none of 5 rows could be found; see rejects\.jsonl, or set"):
        main(make_config(sources, kinds=["benign"], assemble=splits))


@pytest.mark.parametrize(
    ("sft", "said"),
    [
        ({"origin": "answered"}, r"left out: 2 no answers\); see rejects\.jsonl; SFT takes .*benign_answers"),
        ({"origin": "answered", "mix": {"red_team": 1}}, r"left out: 2 kind not in its mix\); see rejects"),
        ({"origin": "bootstrapped"}, r"keep rule: .*\); see keep_rule\.md and bootstrap_rejects\.jsonl, or"),
    ],
)
def test_an_empty_sft_says_why_by_its_origin(make_seeds, make_config, sft, said):
    sources = {"train": {"reader": "jsonl", "path": str(make_seeds("train", ["unsafe a", "unsafe b"]))}}
    splits = {"rl_share": 0, "sft": sft, "rl": {"size": 0}, "bench": {"size": 0}}
    steps = ["stage1", *(["stage2"] if sft["origin"] == "bootstrapped" else []), "assemble"]
    with pytest.raises(UserError, match=said):
        main(make_config(sources, kinds=["benign"], steps=steps, assemble=splits))
