"""The paper's ablations as one word: `ablation=NAME` on any Stage III config (Tables 4, 5, 8, 9).

Adding one is one line here. An ablation writes to a run folder of its own, ROOT/grpo_NAME, next to the full method's.
"""

from safer_steer.errors import UserError

KEY = "ablation="
# name -> what it changes, as Hydra overrides.
ABLATIONS: dict[str, list[str]] = {
    # - TCSR: the turn rewards add up as they are, without the running minimum and mean.
    "no_tcsr": ["safer_steer.tcsr.rule=raw"],
    # - feedback dynamics: the planned questions are asked, whatever the student answers.
    "no_feedback_dynamics": ["safer_steer.feedback_dynamics=false"],
    # - synthetic bootstrapping: RL starts from the model before SFT.
    "no_bootstrapping": ["actor_rollout_ref.model.path=${safer_steer.base_model}"],
    # Data granularity: each prompt is one question, a dialogue's last.
    "single_turn": ["safer_steer.data.turns=last"],
}


def expand(overrides: list[str]) -> list[str]:
    """The overrides with `ablation=NAME` put into its own; keys given next to it win.

    Raises:
        UserError: the name is unknown, or two are given.
    """
    names = [item.removeprefix(KEY) for item in overrides if item.startswith(KEY)]
    if not names:
        return overrides
    if len(names) > 1 or names[0] not in ABLATIONS:
        raise UserError(f"{KEY}{'+'.join(names)}: give one of {', '.join(ABLATIONS)}")
    rest = [item for item in overrides if not item.startswith(KEY)]
    return [f"output=${{root}}/grpo_{names[0]}", *ABLATIONS[names[0]], *rest]
