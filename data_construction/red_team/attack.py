"""The four modules in order, M1 -> M2 -> M3 -> M4; only scripts that succeed against the target become dialogues."""

from data_construction.calls import Rejected
from data_construction.config import RedTeam
from data_construction.quality.writer import Writer
from data_construction.red_team.forensics import analyse
from data_construction.red_team.intent import rewrite_intent
from data_construction.red_team.plan import Script, plan_script
from data_construction.red_team.simulate import Play, simulate
from data_construction.tasks import StageOneTask, make_dialogue
from safer_steer.dialogue import Dialogue, Turn

FAILED = "attack failed"
UNSCORED = "attack unscored"


async def attack(task: StageOneTask, writer: Writer, settings: RedTeam) -> Dialogue:
    """Makes and tries one red-team dialogue.

    Raises:
        Rejected: no usable answer, or no success; what is stored holds strategy, technique and the transcript.
    """
    try:
        forensics = await analyse(task, writer)
        intent = await rewrite_intent(task, forensics, writer, settings)
        script = await plan_script(task, forensics, intent, writer)
        play = await simulate(script.users(), task, writer.caller, success_score=settings.success_score)
        if play.success_turn is None:
            raise _no_success(play, settings.success_score)
    except Rejected as stop:
        names = {"strategy": task.strategy_key, "technique": task.technique_key, "generated_attack": True}
        raise stop.with_row(names) from stop
    meta = {
        "technique": task.technique_key,
        "generated_attack": True,
        "success_turn": play.success_turn,
        "transcript": play.transcript(),
    }
    return make_dialogue(task, _turns(script, play), meta)


def _no_success(play: Play, success_score: int) -> Rejected:
    scores = [turn.leak for turn in play.turns]
    row = {"scores": scores, "transcript": play.transcript()}
    if play.unscored:
        detail = f"{play.unscored} of {len(play.turns)} answers have no score; none of the others is a leak"
        return Rejected(UNSCORED, detail, row=row)
    return Rejected(FAILED, f"highest score {max(scores)}, needed {success_score}", row=row)


def _turns(script: Script, play: Play) -> list[Turn]:
    """The whole script, which is what succeeded; leak scores stand at the turns that were played."""
    leaks = [turn.leak for turn in play.turns] + [None] * (len(script.turns) - len(play.turns))
    return [
        Turn(user=user, meta={"goal": turn.goal, "tactic": turn.tactic, "risk": turn.risk, "leak": leak})
        for user, turn, leak in zip(script.users(), script.turns, leaks, strict=True)
    ]
