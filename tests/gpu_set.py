"""What scripts/check_gpu_set.sh runs in the GPU set, on a machine without a GPU: dry runs, imports, launchers.

Command: python tests/gpu_set.py PART[,PART...]      of dry_runs, imports, launchers; ends with 1 when something failed
A made-up nvidia-smi lists eight GPUs, so that the launchers pass our own checks of the machine and end where the engine
itself finds none.
"""

import importlib
import importlib.util
import os
import pkgutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("safer_steer", "data_construction", "training", "evaluation", "rehearsal", "safer_steer_verl")
OF_THE_CPU_SET = {"safer_steer_verl.platform.cpu", "safer_steer_verl.platform.vllm_cpu_worker"}
ENGINE_MODULES = (
    "deepspeed.runtime.zero.stage3",
    "torch.nn.attention.varlen",
    "trl.trainer.sft_trainer",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "verl.models.transformers.qwen2_vl",
    "verl.trainer.main_ppo",
    "verl.trainer.ppo.v1.trainer_sync",
    "verl.workers.engine.fsdp.transformer_impl",
    "verl.workers.engine_workers",
    "verl.workers.rollout.vllm_rollout.vllm_async_server",
    "vllm.entrypoints.openai.api_server",
    "vllm.model_executor.models.qwen2_5_vl",
    "vllm.model_executor.models.qwen3_vl",
    "vllm.v1.engine.async_llm",
)
STAGES = {
    "data_construction": "data_construction",
    "sft": "sft",
    "grpo": "grpo",
    "evaluation": "evaluation",
    "exports": "export",
}
TUTOR = {"TUTOR_API_BASE_URL": "http://tutor.example:8000/v1"}
LISTED = "".join(f"GPU {n}: made up (UUID: GPU-{n}0000000-0000-0000-0000-000000000000)\\n" for n in range(8))
NVIDIA_SMI = f'#!/bin/sh\ncase $1 in -L) printf "{LISTED}" ;; --query-gpu=driver_version) echo 580.65.06 ;; esac\n'
Check = tuple[str, Callable[[], str | None]]  # its name; what is wrong, or None


def run(*command: str, **environment: str) -> subprocess.CompletedProcess:
    """A command of the repository, both outputs together."""
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"} | environment
    return subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=1800,
    )


def dry_runs(folder: Path) -> Iterator[Check]:
    """Every stage on every config, the layouts, and the scripts that serve and join."""

    def ends_well(*command: str, **environment: str) -> Callable[[], str | None]:
        def check() -> str | None:
            done = run("bash", *command, "--dry-run", **environment)
            return None if done.returncode == 0 else last_lines(done.stdout)

        return check

    for stage, script in STAGES.items():
        for config in sorted((ROOT / "configs" / stage).glob("*.yaml")):
            name = f"configs/{stage}/{config.name}"
            environment = TUTOR if stage == "grpo" and config.stem != "miniature" else {}
            yield (
                f"dry run {name}",
                ends_well(f"scripts/run_{script}.sh", name, f"root={folder / 'dry'}", **environment),
            )
    for layout in sorted((ROOT / "configs/grpo/layout").glob("*.yaml")):
        for size in ("3b", "7b"):
            words = [f"configs/grpo/qwen2_5_vl_{size}.yaml", f"layout={layout.stem}"]
            yield f"dry run {' '.join(words)}", ends_well("scripts/run_grpo.sh", *words, **TUTOR)
    yield "dry run scripts/serve_tutor.sh", ends_well("scripts/serve_tutor.sh")
    yield "dry run scripts/ray_cluster.sh", ends_well("scripts/ray_cluster.sh", "head")


def imports(folder: Path) -> Iterator[Check]:
    """Every module of ours that the GPU path has, and the engines' modules behind it."""

    def imported(name: str) -> Callable[[], str | None]:
        def check() -> str | None:
            try:
                importlib.import_module(name)
            except Exception as error:  # noqa: BLE001  any failure of an import is what is asked for
                return f"{type(error).__name__}: {error}"
            return None

        return check

    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:  # an older commit
            continue
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if module.name not in OF_THE_CPU_SET and not module.name.endswith("__main__"):
                yield f"import {module.name}", imported(module.name)
    for name in ENGINE_MODULES:
        yield f"import {name}", imported(name)


def launchers(folder: Path) -> Iterator[Check]:
    """Each stage's own command on a tiny checkpoint, up to the engine's words for a missing GPU."""
    checkpoint, data = make_inputs(folder)

    def stops_at(said: str, *command: str, **environment: str) -> Callable[[], str | None]:
        def check() -> str | None:
            done = run("bash", *command, **environment)
            if done.returncode and said in done.stdout:
                return None
            return f"ended with {done.returncode} without saying {said!r}: {last_lines(done.stdout)}"

        return check

    missing, vllms = "no GPU is visible", "Failed to infer device type"
    sft = [
        "configs/sft/qwen2_5_vl_3b.yaml",
        f"root={folder}",
        f"model={checkpoint}",
        f"data={data}",
        "answer_format={}",
    ]
    for launcher in ("torchrun", "accelerate", "deepspeed"):
        two = ["training.processes=2", "training.gradient_accumulation=8", f"output={folder}/sft_{launcher}"]
        # DeepSpeed's and accelerate's launchers look for GPUs themselves, before any process of ours.
        said = {"torchrun": missing, "accelerate": "", "deepspeed": ""}[launcher]
        yield f"SFT, {launcher}", stops_at(said, "scripts/run_sft.sh", *sft, *two, GPUS="2", LAUNCHER=launcher)
    with served(folder) as address:
        grpo = ["configs/grpo/qwen2_5_vl_3b.yaml", f"root={folder}", f"actor_rollout_ref.model.path={checkpoint}"]
        grpo += [f"safer_steer.data.source={data}", "safer_steer.layout.tutor_gpus=0"]
        tutor = {"TUTOR_API_BASE_URL": address, "TUTOR_MODEL": "mini-tutor"}
        small = [
            "data.train_batch_size=8",
            "actor_rollout_ref.actor.ppo_mini_batch_size=8",
            "data.max_prompt_length=512",
        ]
        small += ["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1", "safer_steer.data.max_pixels=3136"]
        small += [f"actor_rollout_ref.{part}.log_prob_micro_batch_size_per_gpu=1" for part in ("ref", "rollout")]
        yield "GRPO", stops_at(missing, "scripts/run_grpo.sh", *grpo, *small, **tutor)
        judge = {"JUDGE_API_BASE_URL": address, "JUDGE_MODEL": "mini-judge"}
        evaluation = ["configs/evaluation/steer_bench.yaml", f"root={folder}", f"output={folder}/evaluation"]
        evaluation += [f"benchmarks=[{data}]", "max_pixels=3136"]
        evaluation += [f"models.{name}.checkpoint={checkpoint}" for name in ("base", "sft", "sft_grpo")]
        yield "evaluation", stops_at(vllms, "scripts/run_evaluation.sh", *evaluation, **judge)
    yield "tutor", stops_at(vllms, "scripts/serve_tutor.sh", TUTOR_MODEL=str(checkpoint), GPUS="1", PORT="0")


def make_inputs(folder: Path) -> tuple[Path, Path]:
    """A tiny random checkpoint of the real architecture, and ten dialogues with a picture."""
    from PIL import Image

    from miniature.student import build_model, build_processor
    from safer_steer.dialogue import Dialogue, Turn
    from safer_steer.images import ImageStore
    from safer_steer.store import write_jsonl

    processor = build_processor()
    for part in (build_model(processor.tokenizer), processor):
        part.save_pretrained(folder / "checkpoint")
    store, turns = ImageStore(folder / "data"), [Turn(user="what is it ?", assistant="a circle")] * 2
    rows = [
        Dialogue(
            id=f"d{number}", source="test", kind="red_team", strategy=None, turns=turns,
            images=[store.put(Image.new("RGB", (84, 84), (20 * number, 90, 200)))],
        )
        for number in range(10)
    ]  # fmt: skip
    write_jsonl(folder / "data" / "rows.jsonl", rows)
    return folder / "checkpoint", folder / "data" / "rows.jsonl"


class served:
    """The miniature's teacher, as tutor and judge."""

    def __init__(self, folder: Path):
        from safer_steer.servers import free_port

        self.folder, self.port = folder, free_port()

    def __enter__(self) -> str:
        command = [sys.executable, "-m", "miniature.teacher", "--port", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(10)
        return f"http://127.0.0.1:{self.port}/v1"

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def last_lines(text: str) -> str:
    """The end of an output, on one line."""
    return " | ".join(line.strip() for line in text.strip().splitlines()[-4:])[-600:]


def timed(item: Check) -> tuple[str, str | None, float]:
    """A check's name, what is wrong, and its seconds."""
    name, check = item
    started = time.monotonic()
    return name, check(), time.monotonic() - started


def main(parts: list[str]) -> int:
    """Runs the parts; returns the exit code."""
    known = {"dry_runs": dry_runs, "imports": imports, "launchers": launchers}
    if unknown := [part for part in parts if part not in known]:
        print(f"error: unknown part {unknown[0]!r}; allowed: {', '.join(known)}", file=sys.stderr)
        return 2
    failed = number = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "bin").mkdir()
        (folder / "bin" / "nvidia-smi").write_text(NVIDIA_SMI, encoding="utf-8")
        (folder / "bin" / "nvidia-smi").chmod(0o755)
        os.environ["PATH"] = f"{folder / 'bin'}:{os.environ['PATH']}"
        for part in parts:
            # Dry runs are processes of their own, one for each core; launchers start engines, one at a time.
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                each = pool.map if part == "dry_runs" else map
                for name, problem, seconds in each(timed, known[part](folder)):
                    number, failed = number + 1, failed + (problem is not None)
                    if problem or part != "imports":
                        said = f": {problem}" if problem else ""
                        print(f"{'FAILED' if problem else 'ok'}  {name} ({seconds:.0f} s){said}", flush=True)
            print(f"== {part}: done", flush=True)
    print(f"GPU set: {number} checks, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].split(",")))
