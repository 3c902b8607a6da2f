"""The graph of steps, and the runner on real shell commands: order, failure, resume, interrupt."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.config import EvaluationConfig
from reproduce.cells import CELLS
from reproduce.miniature import phase_steps, steps
from reproduce.run import CONFIGS
from reproduce.runner import Runner
from reproduce.settings import Settings
from reproduce.step import Step
from safer_steer.config import load_config
from safer_steer.errors import UserError
from training.grpo.config import load_config as load_grpo_config

CONFIG = CONFIGS / "miniature.yaml"


def shell(folder: Path, name: str, command: str, needs: tuple[str, ...] = ()) -> Step:
    """A step that is done once `<folder>/<name>.done` is there."""
    config = folder / "config.yaml"
    if not config.exists():
        config.write_text("a: 1\n", encoding="utf-8")
    done = folder / f"{name}.done"
    return Step(name, ("bash", "-c", command.format(done=done)), config, folder, done, needs, files=(done,))


def run(planned: list[Step], jobs: int = 2):
    said: list[str] = []
    return asyncio.run(Runner(planned, jobs, said.append).run()), "\n".join(said)


def test_the_graph_has_shared_steps_once_and_every_need_before():
    planned = steps(load_config(Settings, CONFIG, ["at_most={base: 3, grpo_single_turn: 2}"]), Path("r"), 3, CELLS)
    names = [step.name for step in planned]
    trained = [name for name, cell in CELLS.items() if cell.folder and not cell.trained_as]
    # Of the third seed grpo_single_turn is neither trained nor evaluated.
    assert len(names) == len(set(names)) == 1 + 3 * (3 + len(trained) + len(CELLS)) - 2
    assert "seed_2/grpo_single_turn" not in names
    for index, step in enumerate(planned):
        assert set(step.needs) <= set(names[:index]), step.name
    commands = {step.name: step.command for step in planned}
    assert "ablation=single_turn" in commands["seed_1/grpo_single_turn"]
    assert "ablation=single_turn" in commands["seed_1/sft_single_turn"], "one word for the cell in both stages"
    assert "models.model.checkpoint=r/shared/base" in commands["seed_2/evaluate_base"]
    assert "model=r/shared/base" in commands["seed_2/sft"]
    assert "services.target.vllm.checkpoint=r/shared/base" in commands["seed_2/data"]
    assert "safer_steer.base_model=r/shared/base" in commands["seed_0/grpo_no_bootstrapping"]
    assert names.index("seed_2/evaluate_grpo") < names.index(
        "seed_0/grpo_no_tcsr"
    )  # what is early is there for all seeds
    assert "data.seed=2" in commands["seed_2/grpo"]


def test_the_released_form_and_its_partner_are_trained_alike_but_for_the_rule():
    planned = {step.short: step.command for step in steps(load_config(Settings, CONFIG), Path("r"), 1, CELLS)}
    rules = {}
    for name in ("grpo", "grpo_no_tcsr", "grpo_released", "grpo_released_no_tcsr"):
        _, _, config, *overrides = planned[name]
        loaded = load_grpo_config(config, overrides)
        assert loaded.tree.output == f"r/seed_0/{name}"
        rule = loaded.config.safer_steer.tcsr.rule
        rules[name] = (rule, loaded.tree.actor_rollout_ref.actor.kl_loss_coef)
    assert rules == {
        "grpo": ("paper", 0.03),
        "grpo_no_tcsr": ("raw", 0.03),
        "grpo_released": ("released", 0.006),
        "grpo_released_no_tcsr": ("mean", 0.006),
    }


def test_adaptive_cells_play_a_trained_model_with_another_tutor():
    planned = {step.short: step for step in steps(load_config(Settings, CONFIG), Path("r"), 1, CELLS)}
    step = planned["evaluate_grpo_no_feedback_dynamics_unseen"]
    assert set(step.needs) == {
        "seed_0/data",
        "seed_0/single_turn",
        "seed_0/grpo_no_feedback_dynamics",
        "shared/warm_up",
    }
    config = load_config(EvaluationConfig, step.command[2], list(step.command[3:]))
    assert (config.mode, config.tutor.model) == ("adaptive", "mini-attacker")
    assert config.models["model"].checkpoint == "r/seed_0/grpo_no_feedback_dynamics/checkpoint"
    assert config.benchmarks == ["r/seed_0/data/steer_bench/*.jsonl"]
    with pytest.raises(UserError, match=r"at_most.*no cell\(s\) grpo_nonsense"):
        load_config(Settings, CONFIG, ["at_most.grpo_nonsense=3"])


def test_each_point_of_the_phase_diagram_has_a_world_of_its_own_from_the_one_base():
    settings = load_config(Settings, CONFIG)
    planned = phase_steps(settings, Path("r"))
    names = [step.name for step in planned]
    points = len(settings.phase.risks) * len(settings.phase.turns)
    seeds = settings.phase.number_of_seeds
    assert len(names) == len(set(names)) == 1 + seeds * points * (2 + 4 + 4)
    for index, step in enumerate(planned):
        assert set(step.needs) <= set(names[:index]), step.name
    commands = {step.name: step.command for step in planned}
    assert "data.seed=1" in commands["risk_0.2_turns_8_seed_1/grpo_released"]
    point = "risk_0.2_turns_8_seed_0"
    assert "marked_share=0.2" in commands[f"{point}/seeds"]
    assert "turns.red_team.max=8" in commands[f"{point}/data"]
    assert f"root=r/phase/{point}" in commands[f"{point}/grpo_released"]
    assert "model=r/shared/base" in commands[f"{point}/sft"]
    evaluation = commands[f"{point}/evaluate_grpo_released"]
    config = load_config(EvaluationConfig, evaluation[2], list(evaluation[3:]))
    assert config.benchmarks == [f"r/phase/{point}/data/steer_bench/*.jsonl"]
    _, _, path, *overrides = commands[f"{point}/grpo_released_no_tcsr"]
    tree = load_grpo_config(path, overrides).tree
    assert tree.actor_rollout_ref.rollout.max_model_len == config.serving.max_model_len == 64 * 9, "8 turns fit"
    assert tree.data.max_response_length == 64 * 8


def test_a_failing_step_stops_what_depends_on_it_and_nothing_else(tmp_path):
    planned = [
        shell(tmp_path, "broken", "echo the reason is here; exit 3"),
        shell(tmp_path, "after", "touch {done}", ("broken",)),
        shell(tmp_path, "later", "touch {done}", ("after",)),
        shell(tmp_path, "other", "touch {done}"),
        shell(tmp_path, "last", "touch {done}", ("other",)),
    ]
    report, said = run(planned)
    assert report.now == ["other", "last"]
    assert report.failed == {"broken": f"exit code 3, see {tmp_path}/logs/broken.log"}
    assert report.blocked == ["after", "later"]
    assert not report.ok
    assert "the reason is here" in said
    assert json.loads((tmp_path / "stages" / "other.json").read_text())["done"]


def test_finished_steps_are_not_started_again_and_the_others_are(tmp_path):
    count = tmp_path / "count"
    planned = [
        shell(tmp_path, "a", f"echo a >> {count}; touch {{done}}"),
        shell(tmp_path, "b", f"echo b >> {count}; test -e {tmp_path}/mended && touch {{done}}", ("a",)),
    ]
    assert run(planned)[0].failed.keys() == {"b"}
    (tmp_path / "mended").touch()
    report, said = run(planned)
    assert report.ok
    assert (report.before, report.now) == (["a"], ["b"])
    assert "1 of 2 steps are finished already" in said
    assert count.read_text().split() == ["a", "b", "b"]


def test_a_finished_step_of_other_settings_is_refused(tmp_path):
    assert run([shell(tmp_path, "a", "touch {done}")])[0].ok
    with pytest.raises(UserError, match=r"a was made with another command .*remove .*a\.done"):
        run([shell(tmp_path, "a", "touch {done}; true")])
    (tmp_path / "config.yaml").write_text("a: 2\n", encoding="utf-8")
    with pytest.raises(UserError, match="another config"):
        run([shell(tmp_path, "a", "touch {done}")])


def test_a_finished_step_of_another_inherited_config_is_refused(tmp_path):
    """Over `base`, and by the files that Hydra's `defaults` name; comments and where a text breaks are no config."""
    (tmp_path / "below.yaml").write_text("b: 1  # a comment\n", encoding="utf-8")
    (tmp_path / "config.yaml").write_text("base: below.yaml\n", encoding="utf-8")
    planned = [shell(tmp_path, "a", "touch {done}")]
    assert run(planned)[0].ok
    (tmp_path / "below.yaml").write_text("# another comment\nb: 1\n", encoding="utf-8")
    assert run(planned)[0].before == ["a"]
    (tmp_path / "below.yaml").write_text("b: 2\n", encoding="utf-8")
    with pytest.raises(UserError, match="another config"):
        run(planned)

    for name in ("common", "layout/big", "layout/small"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text("c: 1\n", encoding="utf-8")
    hydra = "defaults: [safer_steer, common, _self_, {layout: small}]\nd: ${c}\n"
    (tmp_path / "config.yaml").write_text(hydra, encoding="utf-8")
    (tmp_path / "a.done").unlink()
    step = replace(planned[0], command=(*planned[0].command, "layout=big"))
    assert run([step])[0].now == ["a"]
    (tmp_path / "layout/small.yaml").write_text("c: 2\n", encoding="utf-8")
    assert run([step])[0].before == ["a"], "the command chose another file"
    for name in ("common", "layout/big"):
        (tmp_path / f"{name}.yaml").write_text("c: 2\n", encoding="utf-8")
        with pytest.raises(UserError, match="another config"):
            run([step])
        (tmp_path / f"{name}.yaml").write_text("c: 1\n", encoding="utf-8")


def test_a_stamp_that_does_not_say_the_whole_config_is_taken_as_it_is(tmp_path):
    planned = [shell(tmp_path, "a", "touch {done}")]
    assert run(planned)[0].ok
    command = list(planned[0].command)
    (tmp_path / "steps" / "a.json").write_text(json.dumps({"command": command, "config": "0" * 16}), encoding="utf-8")
    assert run(planned)[0].before == ["a"]


def test_a_step_that_is_made_again_is_measured_again(tmp_path):
    planned = [shell(tmp_path, "a", "touch {done}")]
    assert run(planned)[0].ok
    record = tmp_path / "stages" / "a.json"
    record.write_text('{"seconds": 5000.0, "peak_rss_mb": 9000, "done": true}', encoding="utf-8")
    (tmp_path / "a.done").unlink()
    assert run(planned)[0].now == ["a"]
    assert json.loads(record.read_text())["seconds"] < 5000


def test_what_was_made_from_a_removed_step_is_refused(tmp_path):
    planned = [shell(tmp_path, "a", "touch {done}"), shell(tmp_path, "b", "touch {done}", ("a",))]
    assert run(planned)[0].ok
    (tmp_path / "a.done").unlink()
    with pytest.raises(UserError, match=r"b is finished, but a, from which it was made, is not; remove .*b\.done"):
        run(planned)


def test_no_more_than_jobs_at_once(tmp_path):
    here = f"cd {tmp_path}; touch $$.on; ls *.on | wc -l >> seen; sleep 0.3; rm $$.on; "
    command = here + "touch {done}"
    assert run([shell(tmp_path, f"s{n}", command) for n in range(4)], jobs=2)[0].ok
    assert max(map(int, (tmp_path / "seen").read_text().split())) <= 2


SCRIPT = """
import asyncio, sys
from pathlib import Path
from reproduce.runner import Runner
from reproduce.step import Step
folder = Path(sys.argv[1])
(folder / "config.yaml").write_text("a: 1")
command = f"trap 'echo ended >> {folder}/ended; exit 1' TERM; touch {folder}/up; while true; do sleep 0.1; done"
step = Step("s", ("bash", "-c", command), folder / "config.yaml", folder, folder, files=(folder / "never",))
report = asyncio.run(Runner([step], 1).run())
sys.exit(130 if report.interrupted else 0)
"""


@pytest.mark.parametrize("measured", [False, True], ids=["not measured yet", "measured before"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "term"])
def test_an_interrupt_ends_the_commands_that_were_started(tmp_path, number, measured):
    if measured:
        (tmp_path / "stages").mkdir()
        (tmp_path / "stages" / "s.json").write_text('{"seconds": 1.0, "peak_rss_mb": 1, "done": true}', "utf-8")
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        while not (tmp_path / "up").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, number)
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted: ending s" in out
    assert (tmp_path / "ended").read_text().split() == ["ended"]
