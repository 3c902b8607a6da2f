"""The gold set: dialogues about pictures of the miniature world in natural English, made by rule from `phrases.yaml`.

A case is a request, an answer and a picture; its labels follow from what the phrases are (`facts`). The same set in
every run.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from evaluation.calibrate.facts import Harm, Said, judge_labels, tutor_labels
from miniature.world import COLOURS, SHAPES, Scene, draw
from safer_steer.dialogue import stable_hash

PHRASES = Path(__file__).with_name("phrases.yaml")
SIDE = 448  # px of a picture
EACH = 12  # cases of every form of answer


@dataclass(frozen=True)
class GoldCase:
    """One case.

    Attributes:
        form: what kind of answer it is, for the report.
        scene: what the picture shows.
        history: earlier exchanges (user, assistant).
        user: the request.
        answer: what is scored.
        note: how the answer was cut out of what was written, "" when there is nothing to say.
        static_next: the planned next user turn, for the tutor.
        harm, said: what the labels follow from.
    """

    form: str
    scene: Scene
    history: tuple[tuple[str, str], ...]
    user: str
    answer: str
    note: str
    static_next: str
    harm: Harm
    said: Said

    @cached_property
    def case_id(self) -> str:
        """A hash of what a reader sees, so that it says nothing about the labels."""
        return stable_hash(str(self.scene), self.history, self.user, self.answer, self.note)

    @property
    def task_id(self) -> str:
        """The same."""
        return self.case_id

    @property
    def settled_in_print(self) -> bool:
        """Whether the judge's protocol as printed has a level for it.

        It has none for a refusal that tells a step, the refusal of a safe request, a lecture without an alternative, or
        an answer that takes no stand.
        """
        said = self.said
        lecture = said.preaches and not said.alternative
        if said.refuses and (lecture or said.gives == "step" or not self.harm):
            return False
        return bool(said.gives or said.refuses or said.answers)

    def labels(self, role: str, printed: bool = False) -> dict[str, int]:
        """Scale -> score, of the judge's or the tutor's scales; the printed protocol has a rule on tags of its own."""
        if role == "tutor":
            return tutor_labels(self.harm, self.said)
        return judge_labels(self.harm, self.said) | ({"helpfulness": 0} if printed and self.note else {})

    def picture(self) -> Image.Image:
        """RGB, 448 x 448 px."""
        small = draw(self.scene, random.Random(self.case_id))
        return small.resize((SIDE, SIDE), Image.Resampling.NEAREST)


def gold_cases(printed: bool = False) -> list[GoldCase]:
    """All cases, or those that the judge's printed protocol settles, in an order that says nothing about them."""
    data = yaml.safe_load(PHRASES.read_text(encoding="utf-8"))
    found: dict[str, GoldCase] = {}
    for name, form in data["forms"].items():
        for case in _of_form(name, form, data):
            found.setdefault(case.case_id, case)
    kept = [case for case in found.values() if case.settled_in_print or not printed]
    return sorted(kept, key=lambda case: case.case_id)


def _of_form(name: str, form: dict[str, Any], data: dict[str, Any]) -> Iterator[GoldCase]:
    rng = random.Random(stable_hash("gold", name))
    said, harm = Said(**form.get("said", {})), form.get("harm", "")
    requests = [item for group in form["requests"] for item in data["requests"][group]]
    for number in range(form.get("cases", EACH)):
        request, answer = requests[number % len(requests)], form["answers"][number % len(form["answers"])]
        sealed = bool(form["sealed"])
        colour, other = rng.sample([colour for colour in COLOURS if colour in data["colours"]], 2)
        shape, another = rng.sample(SHAPES, 2)
        words = {"colour": colour, "shape": shape, "other": other, "another": another}
        fill = [(user.format(**words), reply.format(**words)) for user, reply in request.get("history", [])]
        opening = [] if number % 3 or fill else [(data["opening"][0], data["opening"][1 + sealed].format(**words))]
        tail = f" {rng.choice(data[form['tail']])}" if "tail" in form else ""
        yield GoldCase(
            form=name,
            scene=Scene(colour, shape, sealed),
            history=(*opening, *fill),
            user=request["user"].format(**words),
            answer=answer.format(**words) + tail,
            note=form.get("note", ""),
            static_next=data["next"][sealed].format(**words),
            harm=harm,
            said=said,
        )
