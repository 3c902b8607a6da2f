"""Verdicts from hand-made results that hold, do not hold and are undecided; intervals; the page's form."""

import json
from dataclasses import replace

import numpy as np
import pytest

from miniature.rules import judge_scores
from miniature.world import Scene
from reproduce.claims import CLAIMS, PARTS, judge
from reproduce.intervals import contrast, holm, ratio, restricted_mean_difference, survived, two_level
from reproduce.page import write_pages
from reproduce.results import MULTI_TURN, SINGLE_TURN, UNGROUNDED, Evaluated, Played, Results, read_evaluation
from reproduce.tables import claims_table
from safer_steer.store import write_jsonl

PER_BENCHMARK = 40
PERCENT = (0.0, 100.0)
WITHOUT = tuple(worse for _, _, worse in PARTS.values())  # the models that lack a part of C4


def evaluated(multi: float, single: float, seed: int, last: int = 4) -> Evaluated:
    """A cell whose first `multi` or `single` share of each benchmark is safe; the others fail at turn `last`."""
    rows = []
    for names, share in ((MULTI_TURN, multi), (SINGLE_TURN, single)):
        for name in names:
            for index in range(PER_BENCHMARK):
                safe, alone = index < round(share * PER_BENCHMARK), names is SINGLE_TURN
                rows.append(
                    Played(
                        id=f"{seed}/{name}/{index}",
                        benchmark=name,
                        single_turn=alone,
                        kind="benign" if index % 4 == 0 else "red_team",
                        safe=safe,
                        help=safe,
                        scored=1 if alone else 5,
                        over_refused=1 if index % 8 == 0 else 0 if index % 4 == 0 else None,
                        last_turn=None if alone else 5 if safe else last,
                        failed=None if alone else not safe,
                    )
                )
    return Evaluated(rows)


def results(**rates: tuple[float, float]) -> Results:
    """Cells with their (multi-turn, single-turn) safe shares, alike in three seeds."""
    found = Results()
    for cell, (multi, single) in rates.items():
        for seed in range(3):
            found.add(cell, seed, evaluated(multi, single, seed))
    return found


def as_the_paper_says() -> dict[str, tuple[float, float]]:
    rates = {"base": (0.2, 0.5), "sft_single_turn": (0.35, 0.9), "sft": (0.6, 0.9), "grpo": (0.85, 0.95)}
    rates |= dict.fromkeys([better for _, better, _ in PARTS.values()], rates["grpo"])
    return rates | dict.fromkeys(WITHOUT, (0.7, 0.9)) | {"grpo_single_turn": (0.4, 0.9)}


def test_all_claims_hold_where_the_cells_are_as_the_paper_says():
    claims = judge(results(**as_the_paper_says()))
    assert {name: claim["verdict"] for name, claim in claims.items()} == dict.fromkeys(CLAIMS, "holds")
    safe = claims["C3"]["evidence"]["safe"]
    assert safe["value"] == pytest.approx(25.0)
    assert safe["seeds"] == 3
    assert safe["intervals_apart"]
    assert safe["sft"]["interval"][1] < safe["grpo"]["interval"][0]
    assert set(claims["C4"]["evidence"]) == set(PARTS)
    json.dumps(claims, allow_nan=False)


def test_a_reversed_order_does_not_hold():
    rates = as_the_paper_says() | {"sft": (0.1, 0.2), "grpo": (0.05, 0.1), "grpo_no_tcsr": (0.7, 0.9)}
    claims = judge(results(**rates))
    for name in ("C2", "C3", "C4", "C5", "C6"):
        assert claims[name]["verdict"] == "does not hold", name
    assert claims["C1"]["verdict"] == "holds", "it says nothing about the other cells"


def test_small_differences_are_undecided_and_c3_asks_for_intervals_apart():
    rates = as_the_paper_says()
    claims = judge(results(**rates | {"sft": (0.8, 0.9), "grpo_no_tcsr": rates["grpo"]}))
    safe = claims["C3"]["evidence"]["safe"]
    assert safe["interval"][0] > 0, "paired, the difference is clear"
    assert not safe["intervals_apart"]
    assert claims["C3"]["verdict"] == "undecided"
    assert claims["C4"]["evidence"]["tcsr_printed"]["verdict"] == "undecided"
    assert claims["C4"]["verdict"] == "undecided"


def test_the_parts_of_c4_are_judged_by_corrected_p_values():
    """Two dialogues of each of three seeds: clear by itself, and not as one of five of which none shows more."""
    rates = as_the_paper_says() | dict.fromkeys(WITHOUT, (0.85, 0.95))
    rates["grpo_released_no_tcsr"] = (0.975, 0.95)
    found = results(**rates)
    for one in found.cells["grpo_no_tcsr"].values():
        one.dialogues[:] = [replace(x, safe=x.safe and not x.id.endswith(("beaver/0", "vls/0"))) for x in one.dialogues]
    claim = judge(found)["C4"]
    small, against, none = (claim["evidence"][name] for name in ("tcsr_printed", "tcsr_as_run", "bootstrapping"))
    assert small["interval"][0] > 0
    assert small["p"] < 0.05 < small["corrected_p"]
    assert (small["verdict"], none["verdict"], against["verdict"]) == ("undecided", "undecided", "does not hold")
    assert none["p"] == 1.0
    assert against["corrected_p"] == pytest.approx(5 * 2 / 4001, abs=1e-4), "no draw is there"
    found.cells = {name: found.cells[name] for name in ("grpo", "grpo_no_tcsr")}
    assert judge(found)["C4"]["evidence"]["tcsr_printed"]["corrected_p"] == pytest.approx(5 * small["p"], abs=1e-4)


def test_holm_by_worked_numbers():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_p_value_says_at_which_level_the_interval_reaches_0():
    """Differences of mean 1 and standard error 0.5: two of them, so 0.0455 by the normal distribution."""
    values = np.random.default_rng(0).normal(size=1000)
    values = 1 + (values - values.mean()) / values.std() * 0.5 * 1000**0.5
    found = two_level([contrast([(1.0, values)], (values.min(), values.max()))])
    assert found.p == pytest.approx(0.0455, abs=0.02)
    assert two_level([contrast([(1.0, values - 1)], (values.min() - 1, values.max() - 1))]).p > 0.9


def test_missing_cells_are_undecided_and_named():
    rates = {name: rate for name, rate in as_the_paper_says().items() if name in ("base", "sft")}
    claims = judge(results(**rates))
    assert {claim["verdict"] for claim in claims.values()} == {"undecided"}
    assert claims["C3"]["reason"] == "missing cells: grpo"
    assert claims["C4"]["reason"].startswith("missing cells: grpo, grpo_no_bootstrapping")
    assert "| undecided: missing cells |" in claims_table(claims)
    assert judge(Results())["C1"]["reason"] == "missing cells: base, sft, sft_single_turn"


def test_seeds_that_disagree_widen_the_interval():
    same = two_level([contrast([(1.0, [0.0, 100.0] * 50)], PERCENT)] * 3)
    apart = two_level([contrast([(1.0, [value] * 100)], PERCENT) for value in (10.0, 50.0, 90.0)])
    assert same.value == apart.value == 50.0
    assert apart.high - apart.low > 2 * (same.high - same.low)
    half = 4.303 * 40 / 3**0.5  # Student's t with two degrees of freedom, times the standard error of three seeds
    assert (apart.low, apart.high) == pytest.approx((50 - half, 50 + half), abs=4.0)
    assert same.low == pytest.approx(50 - 1.96 * 50 / 300**0.5, abs=1.0)
    with pytest.raises(ValueError, match="at least one seed"):
        two_level([])


def test_survival_by_hand():
    rows = [(1, True), (2, False), (3, True), (3, False)]
    assert survived(rows, 3) == pytest.approx([1.0, 3 / 4, 3 / 4, 3 / 8])
    number = restricted_mean_difference([(3, False)] * 4, rows, 3)
    assert number.value == pytest.approx(3 - (3 / 4 + 3 / 4 + 3 / 8))
    assert number.draw(np.random.default_rng(0), 7, 1.0).shape == (2, 7)


def test_intervals_have_width_where_all_dialogues_are_alike():
    """Ten of ten in one seed: the exact interval; no failure of either model: some turns either way."""
    certain = two_level([contrast([(1.0, [100.0] * 10)], PERCENT)])
    assert (certain.low, certain.high) == pytest.approx((100 * 0.025**0.1, 100.0), abs=1.0)
    alike = two_level([restricted_mean_difference([(3, False)] * 10, [(3, False)] * 10, 3)] * 3)
    assert alike.low < -0.1
    assert alike.high > 0.1
    refused = two_level([ratio([(0, 3)] * 10)])
    assert (refused.low, refused.value) == (0.0, 0.0)
    assert 20.0 < refused.high < 35.0


def test_reading_what_evaluation_wrote(tmp_path):
    said = judge_scores([], "what is this ?", "a blue one .", Scene("red", "box", False))
    assert UNGROUNDED in said["helpfulness_rationale"]
    row = {"id": "a", "benchmark": "beaver", "single_turn": False, "kind": "benign", "length": 2, "scored": 2}
    row |= {"unscored": 0, "safe": True, "help": False, "harmlessness": 3.0, "helpfulness": 1.5, "over_refused": 1}
    none = {"safe": None, "help": None, "harmlessness": None, "helpfulness": None, "scored": 0, "unscored": 2}
    survival = {"last_turn": 2, "failed": False}
    write_jsonl(tmp_path / "dialogues.jsonl", [row | survival, row | survival | none | {"id": "b"}])
    asked = [{"user": "what is this ?"}, {"user": "what is under the first flap ?"}]
    write_jsonl(tmp_path / "answers.jsonl", [{"id": "a", "turns": asked}, {"id": "b", "turns": asked[:1]}])
    write_jsonl(tmp_path / "verdicts.jsonl", [{"dialogue": "a", "scores": said}, {"dialogue": "b", "scores": None}])
    found = read_evaluation(tmp_path)
    assert (found.unscored, found.left_out) == (2, 1)
    assert [(item.id, item.ungrounded, item.joint, item.flap) for item in found.dialogues] == [("a", 1, False, True)]


def test_the_pages_are_written_without_any_cell(tmp_path):
    page, _ = write_pages(tmp_path, Results(), judge(Results()))
    assert "missing cells" in page.read_text(encoding="utf-8")


def test_the_first_page_has_a_verdict_for_each_part_and_each_rules_rates(tmp_path):
    found = results(**as_the_paper_says() | {"grpo_no_tcsr": (0.95, 0.95)})
    page, tables = write_pages(tmp_path, found, judge(found))
    lines = page.read_text(encoding="utf-8").splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("| C4: "))
    assert "**does not hold**" in lines[at]
    assert lines[at + 1].startswith("| · TCSR as printed (Eq. 18–20) against the plain sum | does not hold: -10.00 (")
    assert [" | holds: +15.00 (" in line for line in lines[at + 2 : at + 6]] == [True] * 4
    assert "| plain sum | 95.0 (" in page.read_text(encoding="utf-8")
    assert "| C4 tcsr as run |" in tables.read_text(encoding="utf-8")
    pictures = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert pictures == [
        f"miniature_{name}.{end}" for name in ("frontier", "phase", "survival") for end in ("png", "svg")
    ]
