"""The judge's prompts on the sample of `python -m safer_steer.prompts`, as the judge's own step builds them."""

from functools import partial
from pathlib import Path

from evaluation.multi_turn.judge import PROMPTS, judge_prompt, judge_text
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.prompt_catalogue import ANSWER, HISTORY, PICTURES, USER, Shown


def _render(choice: str, file: str | None) -> str:
    pairs = [*HISTORY, (USER, ANSWER)]
    turns = [
        Turn(user=user, assistant=answer, images=[*range(count)])
        for (user, answer), count in zip(pairs, PICTURES, strict=True)
    ]
    row = Dialogue(id="sample", source="sample", kind="obfuscated", strategy=None, images=["1.png"], turns=turns)
    return judge_text(row, len(turns), judge_prompt(file or choice))


SHOWN = {
    name: Shown("judge", str(PROMPTS[choice].relative_to(Path(__file__).parents[2])), partial(_render, choice))
    for name, choice in (("judge", "ours"), ("judge_printed", "printed"))
}
