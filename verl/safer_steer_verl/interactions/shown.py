"""The Safety Tutor's prompt on the sample of `python -m safer_steer.prompts`, with feedback dynamics and without."""

from functools import partial
from pathlib import Path

from safer_steer.prompt_catalogue import ANSWER, HISTORY, PICTURES, USER, Shown
from safer_steer_verl.interactions.safety_tutor import TEMPLATE, load_prompt, tutor_data

_NEXT = "Then what should one do about the cork?"


def _render(feedback_dynamics: bool, file: str | None) -> str:
    data = tutor_data(HISTORY, USER, ANSWER, _NEXT, PICTURES)
    return load_prompt(file).render(feedback_dynamics=feedback_dynamics, data=data)


_FILE = str(TEMPLATE.relative_to(Path(__file__).parents[3]))
SHOWN = {
    "safety_tutor": Shown("tutor", _FILE, partial(_render, True)),
    "safety_tutor_static": Shown("tutor, without feedback dynamics", _FILE, partial(_render, False)),
}
