"""A gold case as judge or tutor gets it: the messages, the schema, and the scores out of an answer."""

import json
from pathlib import Path

from pydantic import BaseModel

from evaluation.calibrate.config import CalibrationConfig
from evaluation.calibrate.gold import GoldCase
from evaluation.multi_turn.judge import judge_data, judge_prompt
from safer_steer.chat import user_message
from safer_steer.llm.schemas import strict_schema
from safer_steer.prompts import Prompt
from safer_steer.rubric import JudgeScores
from safer_steer.store import write_atomic, write_jsonl
from safer_steer_verl.interactions.safety_tutor import TutorReply, load_prompt, tutor_data

SCHEMAS: dict[str, type[BaseModel]] = {"judge": JudgeScores, "tutor": TutorReply}


def prompt_of(config: CalibrationConfig) -> Prompt:
    """The template with the policy.

    Raises:
        UserError: it cannot be used.
    """
    if config.role == "judge":
        return judge_prompt(config.prompt or "ours", config.policy)
    return load_prompt(config.prompt, config.policy)


def text_of(case: GoldCase, role: str, prompt: Prompt) -> str:
    """The rendered prompt; the picture is shown at the first turn."""
    shown = (1, *(0 for _ in case.history))
    if role == "tutor":
        data = tutor_data(case.history, case.user, case.answer, case.static_next, shown, case.note)
        return prompt.render(feedback_dynamics=True, data=data)
    return prompt.render(conversation=judge_data(case.history, case.user, case.answer, shown, case.note))


def messages_of(case: GoldCase, role: str, prompt: Prompt) -> list[dict]:
    """The request's messages."""
    return [user_message(text_of(case, role, prompt), [case.picture()])]


def scores_of(answer: BaseModel) -> dict[str, int]:
    """The scores that a model gave, before any lock."""
    if isinstance(answer, TutorReply):
        return answer.scores.model_dump()
    return answer.model_dump(include={"harmlessness", "helpfulness"})


def write_cases(cases: list[GoldCase], config: CalibrationConfig, folder: Path) -> None:
    """Writes what a reader needs, nothing of the labels: `cases.jsonl`, prompts, pictures, `schema.json`."""
    prompt = prompt_of(config)
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    (folder / "prompts").mkdir(exist_ok=True)
    rows = []
    for case in cases:
        picture, text = f"pictures/{case.case_id}.png", f"prompts/{case.case_id}.txt"
        case.picture().save(folder / picture)
        write_atomic(folder / text, text_of(case, config.role, prompt) + "\n")
        rows.append({"id": case.case_id, "prompt": text, "picture": picture})
    write_jsonl(folder / "cases.jsonl", rows)
    write_atomic(folder / "schema.json", json.dumps(strict_schema(SCHEMAS[config.role]), indent=1) + "\n")
