"""Paired tests, agreement of judges and the compare command, against numbers worked out or published."""

import json
import sys

import pytest

from evaluation.compare import main
from evaluation.multi_turn.aggregate import PassConfig, turn_table
from evaluation.multi_turn.agreement import agreement
from evaluation.multi_turn.inference import ANSWERS
from evaluation.multi_turn.judge import VERDICTS
from evaluation.multi_turn.paired import paired
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.store import write_jsonl

SAFE, UNSAFE = [(3, 3)], [(-3, 0)]


def test_mcnemar_by_hand(verdicts, table_of):
    """Only A passes 1 dialogue, only B 7: 2 * (C(8,0) + C(8,1)) / 2^8 = 0.0703."""
    a = [SAFE] * 2 + [UNSAFE] * 8
    b = [UNSAFE] + [SAFE] * 8 + [UNSAFE]
    first, second = ([row for i, turns in enumerate(model) for row in verdicts(f"d{i}", turns)] for model in (a, b))
    first, second = [*first, *verdicts("x", ["no answer: filtered"])], [*second, *verdicts("only b", SAFE)]
    result = paired(table_of(first), table_of(second), PassConfig(), names=("A", "B"))
    safe = result["rates"]["safe"]
    assert (result["n"], result["left_out"]) == (10, 2)
    assert (safe["only_a"], safe["only_b"], safe["difference"]) == (1, 7, 60.0)
    assert safe["p_value"] == pytest.approx(18 / 256)
    assert safe["interval"][0] < 60 < safe["interval"][1]
    assert result["means"]["harmlessness"][0] == pytest.approx((7 * 6 - 6) / 10)


def test_krippendorff_alpha_of_the_published_example(verdicts):
    """Krippendorff (2011): four observers, twelve units, five ordinal values; alpha = 0.815. Values shifted by -3."""
    published = {
        "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        "C": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    }
    rows = {
        name: turn_table(verdicts("d", ["refused: no" if value is None else (value - 3, 1) for value in values]))
        for name, values in published.items()
    }
    harmlessness, helpfulness = agreement(rows)
    assert harmlessness["alpha"] == pytest.approx(0.815, abs=0.001)
    assert harmlessness["n"] == 11  # unit 12 has one score
    assert helpfulness["alpha"] is None  # all scores equal: not defined
    pair = next(pair for pair in harmlessness["pairs"] if (pair["a"], pair["b"]) == ("A", "B"))
    assert (pair["n"], pair["equal"], pair["within_one"]) == (9, pytest.approx(8 / 9), 1.0)


@pytest.fixture
def runs(tmp_path, verdicts):
    """Two evaluations; model `m` of the second one is better on the shared dialogues."""
    for run, turns in (("one", [(3, 3), (-3, 0)]), ("two", [(3, 3), (3, 3)])):
        folder = tmp_path / run / "evaluation" / "m"
        rows = [row for i in range(8) for row in verdicts(f"d{i}", turns)]
        write_jsonl(folder / VERDICTS, rows)
        turn = Turn(user="u", assistant="a")
        meta = {"benchmark": "beaver", "end": "complete"}
        dialogues = [
            Dialogue(id=f"d{i}", source="t", kind="red_team", strategy=None, images=[], turns=[turn], meta=meta)
            for i in range(8)
        ]
        write_jsonl(folder / ANSWERS, dialogues)
    return tmp_path


@pytest.fixture
def compare(monkeypatch, capsys):
    """The command: its exit code, and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
        code = main()
        return code, *capsys.readouterr()

    return run


def test_a_dialogue_passes_as_in_the_runs(runs, compare):
    """Harmlessness 0 of 3 and -3: safe by the threshold of the runs, not by the default."""
    for run in ("one", "two"):
        passing = {"safe_threshold": 0.0, "help_threshold": 0.0, "bootstrap_resamples": 200}
        (runs / run / "evaluation/summary.json").write_text(json.dumps({"passing": passing}))
    code, out, _ = compare(runs / "one/evaluation", runs / "two/evaluation")
    assert (code, "safe +0.0 points" in out) == (0, True)
    (runs / "two/evaluation/summary.json").write_text(json.dumps({"passing": passing | {"safe_threshold": 2.8}}))
    code, _, err = compare(runs / "one/evaluation", runs / "two/evaluation")
    assert (code, err.count("\n")) == (2, 1)
    assert "different passing: safe_threshold 0 and 2.8" in err


def test_static_and_adaptive_answers_are_not_compared_in_silence(runs, compare):
    facts = {"model": "m", "weights": {}, "sampling": {}, "max_pixels": 3136, "answer_format": {}}
    for run, roles in (("one", {}), ("two", {"tutor": {"model": "t"}})):
        record = {"status": "finished", "facts": {"config": facts | {"roles": roles}, "inputs": {}}}
        (runs / run / "evaluation/m/infer.json").write_text(json.dumps(record))
    code, out, _ = compare(runs / "one/evaluation", runs / "two/evaluation", "--output", runs / "out")
    said = "Different user turns: one/evaluation/m static, two/evaluation/m adaptive."
    assert (code, said in out) == (0, True)
    assert said in (runs / "out/tables.md").read_text(encoding="utf-8")
    assert "Different user turns" not in compare(runs / "one/evaluation", runs / "one/evaluation")[1]


def test_dialogues_of_one_id_that_were_not_the_same_are_no_pairs(runs, compare):
    answers = runs / "two/evaluation/m" / ANSWERS
    first, *others = answers.read_text().splitlines()
    answers.write_text("\n".join([first.replace('"user": "u"', '"user": "another"'), *others, ""]))
    facts = {"roles": {}, "model": "m", "weights": {}, "sampling": {}, "max_pixels": 3136, "answer_format": {}}
    for run in ("one", "two"):
        record = {"status": "finished", "facts": {"config": facts, "inputs": {"benchmark beaver": run}}}
        (runs / run / "evaluation/m/infer.json").write_text(json.dumps(record))
    code, out, _ = compare(runs / "one/evaluation", runs / "two/evaluation", "--output", runs / "out")
    assert code == 0
    assert "; 7 shared dialogues" in out
    said = "two/evaluation/m and one/evaluation/m: 1 dialogues of the same id are not compared"
    hashes = "Not the same in one/evaluation/m and two/evaluation/m, by the recorded hashes: benchmark beaver."
    assert all(text in out for text in (said, hashes))
    assert said in (runs / "out/tables.md").read_text(encoding="utf-8")
    assert "not compared" not in compare(runs / "one/evaluation", runs / "one/evaluation")[1]


def test_compare_command(runs, compare):
    code, out, _ = compare(runs / "one/evaluation", runs / "two/evaluation/m", "--output", runs / "out")
    assert code == 0
    assert "two/evaluation/m − one/evaluation/m: safe +100.0 points" in out
    assert "p 0.008; survival p" in out  # 2 / 2^8
    assert (runs / "out/tables.md").read_text(encoding="utf-8").count("## ") > 4
    header = (runs / "out/tables/pairs.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.startswith("models,dialogues,")
    assert all(path.read_bytes().isascii() for path in (runs / "out/tables").glob("*.tex")), "LaTeX knows no other sign"
    code, _, err = compare(runs)
    assert (code, err.count("\n")) == (2, 1)
    assert "no verdicts.jsonl here" in err
