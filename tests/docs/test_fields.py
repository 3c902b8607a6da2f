"""The fields that docs/evaluation.md and docs/grpo.md list for plots are those that the code writes."""

import json

from doc_pages import ROOT, prose
from evaluation.multi_turn.verdicts import VerdictRow
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.rubric import TurnScores
from safer_steer_verl.step_metrics import step_metrics
from safer_steer_verl.trajectory import TrajectoryRecord


def listed(page: str) -> dict[str, set[str]]:
    """First two cells of each row of the page's list of fields -> the names in the third."""
    section = prose(ROOT / "docs" / page).partition("\n## Fields")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| ")]
    return {f"{row[1].strip()} {row[2].strip()}": {*row[3].split("`")[1::2]} for row in rows[1:]}


def test_the_fields_of_an_evaluation():
    answers, turns, verdicts, *_ = listed("evaluation.md").values()
    assert answers >= Dialogue.model_fields.keys()
    assert turns >= Turn.model_fields.keys()
    assert verdicts >= VerdictRow.model_fields.keys()


def test_the_fields_of_a_grpo_run():
    record = TrajectoryRecord(
        dialogue_id="d", source="s", kind="benign", group="g", rollout=0, users=["u"], statics=["u"], answers=["a"],
        scores=[TurnScores(safety=3, usefulness=1, faithfulness=10)], strategies=["none"], diagnoses=[""],
        rewards=[1.0], adapted=[True], tcsr=[1.0], advantages=[0.0], ret=1.0, tutor_seconds=[1.0],
    )  # fmt: skip
    row = json.loads(record.row(1).model_dump_json())
    (turn,), names = row["turns"], listed("grpo.md").values()
    dialogue, turns, metrics = names
    assert dialogue - {"steer_rl.jsonl"} == {*row, *row["meta"]}
    assert turns == {*turn, *turn["meta"], *turn["scores"]}
    ours = {name for name in metrics if name.startswith(("tutor/", "turn_", "attack/", "rollout/"))}
    assert ours <= step_metrics([record], 1).keys()
