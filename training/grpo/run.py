"""Stage III: tutor-in-the-loop GRPO with verl. steer_rl.jsonl + an SFT checkpoint -> an aligned checkpoint.

Command: python -m training.grpo.run [CONFIG] [key=value ...] [--dry-run]      (bash scripts/run_grpo.sh does the same)

CONFIG extends verl's ppo_trainer, so every option of verl can be given as key=value. Output below ROOT/grpo:
checkpoint/ (the last step as a Hugging Face folder), best/ (the best one), curve.png, metrics.jsonl,
trajectories.jsonl, validation.jsonl, checkpoints/ (for resuming), log/, run.json. Run again after an interruption, it
goes on from the last checkpoint; run again after its end, it does nothing. ablation=NAME runs an ablation, into
ROOT/grpo_NAME: no_tcsr, no_feedback_dynamics, no_bootstrapping, single_turn.
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import argparse
import asyncio
import math
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from safer_steer.cli import exit_code
from safer_steer.config import resolved_yaml
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig, LLMClient
from safer_steer.machine import require
from safer_steer.picture_digest import dialogue_pictures
from safer_steer.runs import Run
from safer_steer.servers import start_services, with_service_urls
from safer_steer.store import write_atomic
from safer_steer.weights import is_hub_id
from safer_steer_verl.export import export_weights
from safer_steer_verl.interactions.safety_tutor import PROMPT
from safer_steer_verl.platform import attention
from training.grpo import checkpoints, curve, launch, layout
from training.grpo.config import GrpoConfig, Loaded, load_config
from training.grpo.needs import needs
from training.grpo.plan import plan
from training.grpo.processes import end_run_processes
from training.grpo.verl_check import check as check_with_verl

DEFAULT_CONFIG = "configs/grpo/miniature.yaml"
OPERATIONAL = {
    *("save_freq", "max_actor_ckpt_to_keep", "logger", "project_name", "experiment_name", "default_local_dir"),
    # How much memory the engines take, so that a run that ran out of it continues with less.
    *("gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens", "param_offload", "optimizer_offload"),
    *("ppo_micro_batch_size_per_gpu", "log_prob_micro_batch_size_per_gpu"),
}


def main(loaded: Loaded) -> None:
    """Runs the stage, or resumes it, or finds it finished."""
    config = loaded.config
    folder = Path(config.output)
    data = config.safer_steer.data
    contents = {f"pictures of {path}": dialogue_pictures(path) for path in (data.source, *data.validation)}
    with Run.open(
        folder,
        _facts(config),
        stage="grpo",
        inputs=_inputs(config),
        contents=contents,
        prompts={"tutor": PROMPT.hash},
    ) as run:
        if run.finished:
            run.say_finished()
            return
        require(needs(config))
        if problem := layout.shared_gpus_problem(config.safer_steer, config.verl):
            raise UserError(problem)
        leftovers = end_run_processes(folder)
        if leftovers:
            print(f"grpo: ended {leftovers} processes of an interrupted run in {folder}", file=sys.stderr)
        data = _prepare(loaded, folder)  # a bad row or picture costs no start of a server
        with start_services(config.safer_steer.services, folder / "log") as urls:
            tutor = with_service_urls(config.safer_steer.tutor, urls)
            asyncio.run(_check(tutor))
            counts = _train(loaded, folder, tutor.model_dump(mode="json"), data)
        run.add_usage({"tutor": launch.tutor_usage(folder / "metrics.jsonl")})  # of all attempts, so only at the end
        run.finish(counts)


async def _check(tutor: EndpointConfig) -> None:
    """Finds a missing tutor, or a wrong model in its place, before any engine starts."""
    client = LLMClient("tutor", tutor)
    try:
        await client.check()
    finally:
        await client.close()


def _prepare(loaded: Loaded, folder: Path) -> dict[str, Any]:
    """Makes the parquet files, unless they are there; returns the counts."""
    config = launch.resolve(loaded.tree, folder, loaded.config.safer_steer.tutor.model_dump(mode="json"))
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(config))
    return launch.prepare_data(folder / "config.yaml", launch.environment(config, folder))


def _train(loaded: Loaded, folder: Path, tutor: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    config = launch.resolve(loaded.tree, folder, tutor)
    env = launch.environment(config, folder)
    launch.hand_on(config, env)
    config_path = folder / "config.yaml"
    steps = _set_steps(config, data["kept"])
    saved, metrics = Path(config.trainer.default_local_dir), folder / "metrics.jsonl"
    done, peak_mb = checkpoints.last_step(saved, metrics), 0.0
    config.trainer.val_before_train &= done == 0  # a resumed run has been validated at its start
    write_atomic(config_path, OmegaConf.to_yaml(config))
    if done < steps:
        checkpoints.rewind(folder, done)
        try:
            peak_mb = launch.train(config_path, env, steps=steps, done=done, stall_s=loaded.config.safer_steer.stall_s)
        finally:
            _draw(folder)
        done = checkpoints.last_step(saved, metrics)
    else:  # killed after its last step
        _draw(folder)
    if done != steps:
        log = folder / "log" / "verl.log"
        raise UserError(f"verl ended after step {done} of {steps}; see {log}, then run again to resume")
    pixels = config.safer_steer.data.max_pixels
    export_weights(saved / f"{checkpoints.PREFIX}{done}", folder / "checkpoint", pixels)
    path = attention.choose(config.safer_steer.attention, config.trainer.device)
    counts = {"prompts": data["kept"], "rejected": data["rejected"], "steps": done, "peak_mb": round(peak_mb)}
    return counts | {"attention": path}


def _draw(folder: Path) -> None:
    """The curve of the steps so far; a run that stopped before its first step has none."""
    try:
        curve.draw_run(folder)
    except UserError:
        return


def _set_steps(config: Any, prompts: int) -> int:
    """Fixes the number of steps, and enough epochs for them: verl ends early, and silently, when epochs run out."""
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


def _facts(config: GrpoConfig) -> GrpoConfig:
    """The config without what may differ when a run is resumed: where and how often it saves, what it logs to, Ray."""
    verl = {name: part for name, part in config.verl.items() if name not in ("ray_kwargs", "transfer_queue")}
    return config.model_copy(update={"verl": without_operational(verl)})


def without_operational(verl: Any) -> Any:
    """A part of verl's config without the values that change how fast or in how much memory it computes."""
    if isinstance(verl, dict):
        return {name: without_operational(part) for name, part in verl.items() if name not in OPERATIONAL}
    return [without_operational(part) for part in verl] if isinstance(verl, list) else verl


def _inputs(config: GrpoConfig) -> dict[str, Path]:
    """What the result depends on; a model on the hub is named by the config."""
    model = config.verl["actor_rollout_ref"]["model"]["path"]
    return {"data": Path(config.safer_steer.data.source)} | ({} if is_hub_id(model) else {"model": Path(model)})


def run_cli(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", help=f"YAML file (default: {DEFAULT_CONFIG})")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any key of the config, as Hydra takes it")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config and the plan; touch nothing")
    arguments = parser.parse_intermixed_args(argv)
    path, overrides = arguments.config or DEFAULT_CONFIG, list(arguments.overrides)
    if "=" in path:
        path, overrides = DEFAULT_CONFIG, [path, *overrides]

    def run() -> None:
        loaded = load_config(path, overrides)
        if not arguments.dry_run:
            return main(loaded)
        check_with_verl(loaded.tree)
        print(f"# {path}\n{resolved_yaml(loaded.config)}# plan\n{plan(loaded.config)}")
        return None

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(run_cli())
