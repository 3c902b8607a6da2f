"""Properties of the pure parts, whatever the verdicts."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.multi_turn.aggregate import PassConfig, aggregate, dialogue_table, turn_table
from evaluation.multi_turn.survival import first_failures, kaplan_meier
from evaluation.multi_turn.verdicts import JudgeIdentity, VerdictRow
from safer_steer.rubric import JudgeScores
from safer_steer.store import put_in_order, write_jsonl

NUMBERS = ("safe", "help", "joint", "harmlessness", "helpfulness")
JUDGE = JudgeIdentity(model="j", prompt_hash="0")
REASONS = ("no answer: filtered", "no answer: context_full", "refused: no", "unparsed: prose", "transport: 503")
turns = st.lists(
    st.one_of(st.tuples(st.integers(-3, 3), st.integers(0, 3)), st.sampled_from(REASONS)), min_size=1, max_size=12
)
evaluations = st.dictionaries(st.sampled_from("abcdefgh"), turns, min_size=1)


def rows_of(evaluation):
    for dialogue, given_turns in evaluation.items():
        for number, turn in enumerate(given_turns, 1):
            scored = isinstance(turn, tuple)
            yield VerdictRow(
                id=f"{dialogue}:{number}",
                dialogue=dialogue,
                benchmark="beaver" if dialogue < "d" else "dys",
                kind="benign" if dialogue < "c" else "red_team",
                turn=number,
                scores=JudgeScores(harmlessness=turn[0], helpfulness=turn[1]) if scored else None,
                unscored=None if scored else turn,
                judge=JUDGE,
            )


def numbers(rows):
    turns, passing = turn_table(rows), PassConfig(bootstrap_resamples=100)
    return aggregate(turns, dialogue_table(turns, passing), passing)


@settings(max_examples=40)
@given(evaluations, st.randoms(use_true_random=False))
def test_nothing_is_lost_made_up_or_dependent_on_order(evaluation, rng):
    rows = list(rows_of(evaluation))
    found = numbers(rows)
    overall = found["overall"]
    assert overall["scored"] + overall["unscored"] == len(rows)
    assert overall["n_dialogues"] + overall["left_out"] == len(evaluation)
    assert sum(overall["reasons"].values()) == overall["unscored"]
    assert sum(group["scored"] for group in found["by_benchmark"].values()) == overall["scored"]
    assert sum(turn["scored"] for turn in found["by_turn"]) == overall["scored"]
    if overall["n_dialogues"]:
        assert 0 <= overall["joint"] <= min(overall["safe"], overall["help"])
        assert overall["safe_ci"][0] <= overall["safe"] <= overall["safe_ci"][1]
        assert all(overall[f"{name}_ci"][1] > overall[f"{name}_ci"][0] for name in NUMBERS)
    rng.shuffle(rows)
    assert numbers(rows) == found


@settings(max_examples=40)
@given(evaluations)
def test_survival_is_the_product_limit_and_never_counts_an_unscored_turn(evaluation):
    seen = first_failures(turn_table(rows_of(evaluation)))
    for dialogue, last, failed in seen.itertuples(name=None):
        survived = evaluation[dialogue][: last - failed]
        assert all(isinstance(turn, tuple) and turn[0] >= 2 for turn in survived)
        if failed:
            assert evaluation[dialogue][last - 1][0] < 2
    curve, product = kaplan_meier(seen), 1.0
    for turn, value in enumerate(curve.survival):
        product *= 1 - curve.failed[turn] / curve.at_risk[turn]
        assert value == pytest.approx(product)
    assert curve.at_risk[0] == len(seen) == sum(curve.failed) + sum(curve.censored)


def test_order_of_a_finished_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    ids = [f"d{number}" for number in range(50)]
    rows = [{"id": name, "text": "ü\u2028 " * number} for number, name in enumerate(ids)]
    write_jsonl(path, rows)
    wanted = path.read_bytes()
    random.Random(1).shuffle(rows)
    write_jsonl(path, [{"id": "extra"}, *rows])
    put_in_order(path, ids)
    assert path.read_bytes() == wanted + b'{"id": "extra"}\n'
    before = path.stat().st_mtime_ns
    put_in_order(path, ids)
    assert path.stat().st_mtime_ns == before
