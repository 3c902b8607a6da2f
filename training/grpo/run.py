"""Stage III: tutor-in-the-loop GRPO with verl. steer_rl.jsonl + an SFT checkpoint -> an aligned checkpoint.

Command: python -m training.grpo.run [CONFIG] [key=value ...] [--dry-run]      (bash scripts/run_grpo.sh does the same)

CONFIG extends verl's ppo_trainer, so every option of verl can be given as key=value. Output below ROOT/grpo:
checkpoint/ (the last step as a Hugging Face folder), best/ (the best one), curve.png, metrics.jsonl,
trajectories.jsonl, validation.jsonl, checkpoints/ (for resuming), log/, run.json. Run again after an interruption, it
continues from the last checkpoint; run again after its end, it does nothing. ablation=NAME runs an ablation, into
ROOT/grpo_NAME: no_tcsr, no_feedback_dynamics, no_bootstrapping, single_turn.
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import argparse
import asyncio
import contextlib
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from safer_steer.cli import command, print_dry_run
from safer_steer.config import help_text
from safer_steer.deaths import MemoryLog
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig, LLMClient
from safer_steer.machine import memory_of, require
from safer_steer.picture_digest import dialogue_pictures
from safer_steer.progress import ProgressBar
from safer_steer.runs import Run
from safer_steer.servers import start_services, with_service_urls
from safer_steer.store import read_jsonl, write_atomic
from safer_steer.usage import merge_usage
from safer_steer.weights import is_hub_id
from safer_steer_verl.export import export_weights
from safer_steer_verl.interactions.safety_tutor import load_prompt
from safer_steer_verl.kept import PREFIX, keep_only
from safer_steer_verl.platform import attention
from safer_steer_verl.settings import SaferSteerSettings
from training.ablations import expand
from training.grpo import checkpoints, curve, layout, processes
from training.grpo.config import GrpoConfig, Loaded, load_config, without_operational
from training.grpo.failure import failure_message
from training.grpo.needs import needs
from training.grpo.plan import plan
from training.grpo.prepare import prepare_apart
from training.grpo.watch import StallWatch

DEFAULT_CONFIG = "configs/grpo/qwen2_5_vl_3b.yaml"
POLL_S = 0.5
MEMORY_EVERY_S = 10.0
STOP_GRACE_S = 20.0
SHOWN = (  # metrics that the console says of every step, where the step has them
    *(f"tutor/{name}" for name in ("turn_reward_mean", "return_mean", "safety_mean", "usefulness_mean")),
    *("tutor/fully_safe_share", "val/tutor/turn_reward_mean", "val/tutor/fully_safe_share"),
    *("rollout/masked", "rollout/unscored_rate", "rollout/token_fault_rate", "tutor/latency_p95_s"),
    *("actor/kl_loss", "actor/entropy", "actor/grad_norm", "training/rollout_probs_diff_mean"),
    *("timing_s/gen", "timing_s/old_log_prob", "timing_s/update_actor"),
)


def main(loaded: Loaded) -> None:
    """Runs the stage, or resumes it, or finds it finished."""
    config = loaded.config
    folder, ours = Path(config.output), config.safer_steer
    pictures = {f"pictures of {path}": dialogue_pictures(path) for path in (ours.data.source, *ours.data.validation)}
    prompts = {"tutor": load_prompt(ours.tutor.prompt, ours.policy).hash}
    facts = config.model_copy(update={"verl": without_operational(config.verl)})
    with Run.open(folder, facts, stage="grpo", inputs=inputs(config), contents=pictures, prompts=prompts) as run:
        if run.finished:
            run.say_finished()
            return
        require(needs(config))
        plan(config).announce()
        if problem := layout.shared_gpus_problem(ours, config.verl):
            raise UserError(problem)
        if leftovers := processes.end_run_processes(folder):
            print(f"grpo: ended {leftovers} processes of an interrupted run in {folder}", file=sys.stderr)
        engine = engine_config(loaded, folder, ours.tutor)
        write_atomic(folder / "config.yaml", OmegaConf.to_yaml(engine))
        made = prepare_apart(folder / "config.yaml", processes.environment(engine, folder))  # before any server starts
        with start_services(ours.services, folder / "log") as urls:
            tutor = with_service_urls(ours.tutor, urls)
            asyncio.run(check_tutor(tutor))
            counts = train(engine_config(loaded, folder, tutor), folder, made["kept"], ours.stall_s)
        export_weights(
            folder / "checkpoints" / f"{PREFIX}{counts['steps']}",
            folder / "checkpoint",
            ours.data.max_pixels,
            ours.answer_format,
        )
        run.add_usage({"tutor": tutor_usage(folder / "metrics.jsonl")})  # of all attempts, so only at the end
        counts |= {"attention": attention.choose(ours.attention, config.verl["trainer"]["device"])}
        run.finish({"prompts": made["kept"], "rejected": made["rejected"]} | counts)


def inputs(config: GrpoConfig) -> dict[str, Path]:
    """Files whose content the result depends on; a model on the hub is named by the config."""
    ours, model = config.safer_steer, config.verl["actor_rollout_ref"]["model"]["path"]
    files = {"data": ours.data.source, **{f"validation {path}": path for path in ours.data.validation}}
    if ours.reward.function:
        file, _, name = ours.reward.function.rpartition(":")
        files[f"reward {name}"] = file
    if not is_hub_id(model):
        files["model"] = model
    return {name: Path(path) for name, path in files.items()}


def engine_config(loaded: Loaded, folder: Path, tutor: EndpointConfig) -> DictConfig:
    """The config as verl reads it: validated values, absolute paths, Ray's private folder, no interpolations.

    Args:
        loaded: the run's config.
        folder: the run folder.
        tutor: its endpoint; once its server runs, with the real address.
    """
    ours = loaded.config.safer_steer.model_dump(mode="json") | {"tutor": tutor.model_dump(mode="json")}
    files = ((ours, "policy"), (ours["data"], "source"), (ours["tutor"], "prompt"), (ours["reward"], "function"))
    for section, key in files:
        if section.get(key):
            section[key] = str(Path(section[key]).resolve())
    ours["data"]["validation"] = [str(Path(path).resolve()) for path in ours["data"]["validation"]]
    tree = OmegaConf.create(OmegaConf.to_container(loaded.tree, resolve=False))
    tree.root, tree.output, tree.safer_steer = str(Path(tree.root).resolve()), str(folder.resolve()), ours
    attention.apply(tree)
    plain = OmegaConf.create(OmegaConf.to_container(tree, resolve=True))
    model = plain.actor_rollout_ref.model
    if Path(model.path).exists():
        model.path = str(Path(model.path).resolve())
    with open_dict(plain):
        if not plain.ray_kwargs.ray_init.get("address"):  # a cluster that was named is used as it is
            plain.ray_kwargs.ray_init._temp_dir = str(processes.ray_folder(folder))
    return plain


async def check_tutor(tutor: EndpointConfig) -> None:
    """Finds a missing tutor, or a wrong model in its place, before any engine starts.

    Raises:
        UserError: it does not answer, or serves another model.
    """
    client = LLMClient("tutor", tutor)
    try:
        await client.check()
    finally:
        await client.close()


def train(config: DictConfig, folder: Path, prompts: int, stall_s: float) -> dict[str, Any]:
    """Trains from the last checkpoint to the last step; returns the steps and the peak of memory.

    Args:
        config: as verl reads it, see `engine_config`.
        folder: the run folder.
        prompts: usable ones in the parquet file.
        stall_s: seconds without any sign of life after which the run is ended.

    Raises:
        UserError: it did not come to its end.
    """
    env = processes.environment(config, folder)
    processes.hand_on(config, env)
    steps = set_steps(config, prompts)
    saved, metrics = folder / "checkpoints", folder / "metrics.jsonl"
    done, peak_mb = checkpoints.last_step(saved, metrics), 0.0
    config.trainer.val_before_train &= done == 0  # a resumed run has been validated at its start
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(config))
    try:
        if done < steps:  # else killed after its last step
            checkpoints.rewind(folder, done)
            if removed := keep_only(saved, done, config.trainer.max_actor_ckpt_to_keep):
                said = f"grpo: removed checkpoints of an earlier attempt, of steps {', '.join(map(str, removed))}"
                print(said, file=sys.stderr)
            peak_mb = run_engine(folder, env, steps=steps, done=done, stall_s=stall_s)
            done = checkpoints.last_step(saved, metrics)
    finally:
        with contextlib.suppress(UserError):  # a run that stopped before its first step has no curve
            curve.draw_run(folder)
    if done != steps:
        log = folder / "log" / "verl.log"
        raise UserError(f"verl ended after step {done} of {steps}; see {log}, then run again to resume")
    return {"steps": done, "peak_mb": round(peak_mb)}


def set_steps(config: DictConfig, prompts: int) -> int:
    """Fixes the number of steps, and enough epochs for them: verl ends early, and silently, when epochs run out.

    Raises:
        UserError: there are fewer prompts than a batch has.
    """
    per_epoch = prompts // config.data.train_batch_size
    if per_epoch == 0:
        raise UserError(
            f"{prompts} usable prompts are fewer than data.train_batch_size {config.data.train_batch_size}; "
            "lower it, or add data"
        )
    steps = config.trainer.total_training_steps or per_epoch * config.trainer.total_epochs
    config.trainer.total_training_steps = steps
    config.trainer.total_epochs = math.ceil(steps / per_epoch)
    if config.trainer.save_freq <= 0:
        config.trainer.save_freq = steps  # without a checkpoint there is no result
    return steps


def run_engine(folder: Path, env: dict[str, str], *, steps: int, done: int, stall_s: float) -> float:
    """Runs verl (`safer_steer_verl.main`) on folder/config.yaml to its end, with a progress bar over steps.

    Args:
        folder: the run folder.
        env: see `processes.environment`.
        steps: the step to reach.
        done: steps of an earlier run that this one resumes after.
        stall_s: seconds without any sign of life after which the run is ended.

    Returns:
        Peak memory of all processes of the run, in MiB.

    Raises:
        UserError: verl failed, one of its processes died, or nothing happened any more; the message has the reason and
            names the log.
    """
    log_path, failure_path = folder / "log" / "verl.log", folder / "log" / "failure.json"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    processes.make_ray_folder(folder)
    failure_path.unlink(missing_ok=True)  # of an attempt before
    if log_path.is_file():
        log_path.replace(log_path.with_name("verl.previous.log"))
    memory, watch = MemoryLog(), StallWatch(folder, stall_s)
    peak_mb, measured = 0.0, 0.0

    def look() -> None:
        nonlocal peak_mb, measured
        memory.sample()
        watch.look()
        if time.monotonic() - measured > MEMORY_EVERY_S:
            peak_mb, measured = max(peak_mb, memory_of(processes.run_processes(folder)) / 2**20), time.monotonic()

    command = [sys.executable, "-m", "safer_steer_verl.main", str(folder / "config.yaml"), str(failure_path)]
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            command, env=env, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            with ProgressBar("grpo steps", total=steps, done=done) as bar:
                for row in new_rows(folder / "metrics.jsonl", done, child, look):
                    print(step_line(row), file=sys.stderr, flush=True)
                    bar.advance()
        finally:
            _stop(child, folder)
    if child.returncode != 0:
        raise UserError(failure_message(child.returncode, failure_path, log_path, memory))
    return peak_mb


def new_rows(path: Path, done: int, child: subprocess.Popen, look: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """The metrics rows of steps after `done`, as the child writes them, until it ends; `look` is called meanwhile."""
    seen = done
    while True:
        ended = child.poll() is not None
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        for row in map(json.loads, lines[-64:]):
            if row["step"] > seen:
                seen = row["step"]
                yield row
        if ended:
            return
        look()
        time.sleep(POLL_S)


def step_line(row: dict[str, Any]) -> str:
    """One line about a step, by the names of metrics.jsonl; a metric that the step lacks is left out."""
    said = [f"{key.replace('tutor/', '')} {row[key]:.4g}" for key in SHOWN if row.get(key) is not None]
    return f"step {row['step']} ({row.get('timing_s/step') or 0:.1f} s): {', '.join(said)}"


def _stop(child: subprocess.Popen, folder: Path) -> None:
    """Ends the child and whatever else of this run is still alive; after a second Ctrl-C, by force."""

    def end(grace_s: float) -> None:
        child.kill()
        child.wait()
        processes.end_run_processes(folder, grace_s)

    try:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(STOP_GRACE_S)
        end(processes.GRACE_S)
    except KeyboardInterrupt:
        end(0.0)
        raise
    finally:
        shutil.rmtree(processes.ray_folder(folder), ignore_errors=True)


def tutor_usage(metrics: Path) -> dict[str, Any]:
    """What the tutor was called for over all steps, from the running totals that each worker reports."""
    latest: dict[str, dict[str, Any]] = {}
    for row in read_jsonl(metrics):
        latest |= row.get("tutor_usage") or {}
    return merge_usage(list(latest.values()))


def act(given: argparse.Namespace) -> None:
    """Runs the stage, or prints its plan, which touches nothing."""
    loaded = load_config(given.config, given.overrides)
    if not given.dry_run:
        return main(loaded)
    from safer_steer_verl.verl_check import dry_check  # imports verl

    dry_check(loaded.tree)
    print_dry_run([given.config, *expand("grpo", given.overrides)], loaded.config, plan(loaded.config))
    return None


def run_cli() -> int:
    """The command line; returns the exit code."""
    keys = ["keys of the method, with their defaults; the others are verl's:"]
    return command(__doc__, keys + help_text(SaferSteerSettings, "safer_steer."), DEFAULT_CONFIG, act)


if __name__ == "__main__":
    sys.exit(run_cli())
