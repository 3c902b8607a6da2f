"""The engines' part of a rehearsal: each stage's own command on a derived config, and what its output says.

SFT: two steps, each saved, then once more from the first step's checkpoint. GRPO: two steps with weight sync, rollout,
log-probs, update, checkpoint and export. Evaluation: one dialogue, served, played, judged.
"""

import json
import math
import shutil
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from rehearsal.measured import Ran, run
from rehearsal.subjects import Subject
from safer_steer.machine import Finding, gb
from safer_steer.store import read_jsonl, rows_if_there, write_atomic

SCRIPTS = {"sft": "scripts/run_sft.sh", "grpo": "scripts/run_grpo.sh", "evaluation": "scripts/run_evaluation.sh"}
# Mean difference of the log-probs of rollout engine and trainer on the same tokens; bf16 engines differ by about 0.01.
MOST_NATS = 0.05


@dataclass
class Play:
    """What a stage's rehearsal gave: lines for the table, seconds of its steps, peak memory in bytes."""

    findings: list[Finding] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of each step; the first has warm-up in it
    start_s: float = 0.0  # loading, saving, exporting: everything but the steps
    peak: float = 0.0
    gpu_peak: float = 0.0
    export: Path | None = None

    def add(self, check: str, found: str, needed: str, ok: bool, advice: str = "") -> None:
        """Adds a line that either is in order or would break the run."""
        self.findings.append(Finding(check, found, needed, "ok" if ok else "breaks", advice))

    def failed(self, check: str, ran: Ran, log: Path) -> bool:
        """Adds a line for a command that ended badly; returns whether it did."""
        if ran.code:
            self.add(
                check, f"ended with code {ran.code}: {ran.error[:600]}", "an end without error", False, f"log: {log}"
            )
        return ran.code != 0


def _start(done: Play, subject: Subject, config: Path, log: Path, **environment: str) -> Ran:
    """Runs the stage's script on the derived config; counts its memory."""
    ran = run(["bash", SCRIPTS[subject.kind], str(config)], log, environment, gpu=subject.device == "cuda")
    done.peak, done.gpu_peak = max(done.peak, ran.peak), max(done.gpu_peak, ran.gpu_peak)
    return ran


def play_sft(subject: Subject, config: Path, folder: Path, processes: int) -> Play:
    """Two steps, then the second one again from the first one's checkpoint, as after a kill between the two."""
    log, done = folder / "sft.log", Play()
    ran = _start(done, subject, config, log, GPUS=str(processes))
    if done.failed("two steps", ran, log):
        return done
    output = folder / "sft"
    rows = list(read_jsonl(output / "log.jsonl"))
    losses = [row["loss"] for row in rows]
    ends = [0.0, *(row["seconds"] for row in rows)]
    done.seconds = [after - before for before, after in pairwise(ends)]
    done.start_s = max(0.0, ran.seconds - sum(done.seconds))
    finite = len(rows) == 2 and all(map(math.isfinite, losses))
    done.add("two steps", f"loss {', '.join(f'{loss:.3f}' for loss in losses)}", "two finite losses", finite)
    done.export = output / "checkpoint"
    # As a run leaves it that is killed after its first step.
    checkpoints = sorted((output / "trainer").glob("checkpoint-*"))
    done.add(
        "saved",
        ", ".join(path.name for path in checkpoints) or "nothing",
        "checkpoint-1, checkpoint-2",
        len(checkpoints) == 2,
    )
    if len(checkpoints) != 2:
        return done
    shutil.rmtree(checkpoints[1])
    shutil.rmtree(output / "checkpoint")
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    write_atomic(output / "run.json", json.dumps(record | {"status": "running"}))
    again = _start(done, subject, config, log, GPUS=str(processes))
    if done.failed("resumed", again, log):
        return done
    repeated = [row["loss"] for row in read_jsonl(output / "log.jsonl")]
    same = len(repeated) == 2 and abs(repeated[1] - losses[1]) <= 0.02 * abs(losses[1])
    said = f"step 2 again: loss {repeated[-1]:.4f}, before {losses[1]:.4f}"
    done.add("resumed", said, "the same loss within 2 %", same, "" if same else f"log: {log}")
    done.add("export", _export(output / "checkpoint"), "weights and processor", _whole(output / "checkpoint"))
    return done


def play_grpo(subject: Subject, config: Path, folder: Path) -> Play:
    """Two steps: sync, rollout, log-probs, update, checkpoint, second sync and rollout, export."""
    done = Play()
    ran = _start(done, subject, config, folder / "grpo.log")
    output = folder / "grpo"
    rows = list(rows_if_there(output / "metrics.jsonl"))
    done.seconds = [row.get("timing_s/step") or 0.0 for row in rows]
    done.start_s = max(0.0, ran.seconds - sum(done.seconds))
    failed = done.failed("two steps", ran, output / "log" / "verl.log")
    if rows:
        done.findings += _grpo_numbers(rows, output)
    if failed:
        return done
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    done.peak = max(done.peak, record["counts"].get("peak_mb", 0) * 2**20)
    parts = ("gen", "old_log_prob", "ref", "update_actor", "update_weights", "save_checkpoint")
    spent = ", ".join(
        f"{part} {rows[-1][f'timing_s/{part}']:.1f}" for part in parts if rows[-1].get(f"timing_s/{part}")
    )
    done.add("two steps", f"{len(rows)} steps; seconds of the last: {spent}", "2 steps", len(rows) == 2)
    done.export = output / "checkpoint"
    done.add("export", _export(output / "checkpoint"), "weights and processor", _whole(output / "checkpoint"))
    return done


def _grpo_numbers(rows: list[dict[str, Any]], output: Path) -> list[Finding]:
    """What the metrics and trajectories of the steps say."""
    found = []
    masked = [row["rollout/masked"] for row in rows if row.get("rollout/masked") is not None]
    trajectories = list(rows_if_there(output / "trajectories.jsonl"))
    reasons = [str(row["meta"].get("reason")) for row in trajectories if row["meta"].get("reason")]
    tokens = [reason for reason in reasons if "token accounting" in reason]
    first = f"; first: {tokens[0][:200]}" if tokens else ""
    found.append(
        Finding(
            "token accounting",
            f"{len(tokens)} of {len(trajectories)} trajectories do not add up, text outside NFC among them{first}",
            "0",
            "breaks" if len(tokens) > len(trajectories) // 10 else "warning" if tokens else "ok",
            "another chat template or tokenizer than the checkpoint's own?" if tokens else "",
        )
    )
    found.append(
        Finding(
            "masked trajectories",
            f"{sum(masked):.0f} in {len(rows)} steps" + (f"; first reason: {reasons[0][:160]}" if reasons else ""),
            "few",
            "ok" if sum(masked) <= 0.1 * max(1, len(trajectories)) else "warning",
        )
    )
    norms = [row["actor/grad_norm"] for row in rows if row.get("actor/grad_norm") is not None]
    moved = any(norms)
    found.append(
        Finding(
            "update",
            f"gradient norms {', '.join(f'{norm:.2g}' for norm in norms) or 'none'}",
            "one above 0, so that the second rollout has other weights",
            "ok" if moved else "warning",
            "" if moved else "all trajectories of a group got the same return: does the tutor tell answers apart?",
        )
    )
    nats = [
        row["rollout_corr/log_ppl_abs_diff"] for row in rows if row.get("rollout_corr/log_ppl_abs_diff") is not None
    ]
    if nats:
        same = max(nats) < MOST_NATS
        advice = "" if same else "the two engines see other tokens, pictures or sampling, or compute in too few bits"
        said = f"log-probs differ by {max(nats):.1e} nat a token"
        needed = f"below {MOST_NATS} nat"
        found.append(Finding("rollout against trainer", said, needed, "ok" if same else "warning", advice))
    return found


def play_evaluation(subject: Subject, config: Path, folder: Path) -> Play:
    """One dialogue: server started, turns played, answers judged, report made."""
    log, done = folder / "evaluation.log", Play()
    ran = _start(done, subject, config, log)
    if done.failed("the dialogue with most pictures", ran, log):
        return done
    output = folder / "evaluation" / "rehearsed"
    rows = list(read_jsonl(output / "answers.jsonl"))
    turns = sum(len(row["turns"]) for row in rows)
    answered = sum(turn["assistant"] is not None for row in rows for turn in row["turns"])
    verdicts = sum(1 for _ in read_jsonl(output / "verdicts.jsonl"))
    pictures = max((len(row["images"]) for row in rows), default=0)
    said = f"{answered} of {turns} turns answered, {verdicts} judged, {pictures} picture(s)"
    advice = "" if answered == turns else "serving.max_model_len is reached: later turns are lost"
    verdict = "ok" if answered == turns else "warning"
    done.findings.append(Finding("the dialogue with most pictures", said, f"{turns} turns", verdict, advice))
    record = json.loads((output / "infer.json").read_text(encoding="utf-8"))
    done.seconds, done.start_s = [record["seconds"]], max(0.0, ran.seconds - record["seconds"])
    return done


def _whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("config.json", "tokenizer_config.json")) and any(
        folder.glob("*.safetensors")
    )


def _export(folder: Path) -> str:
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return f"{gb(weights)} of weights in {folder.name}/" if weights else "no weights"


def memory_finding(done: Play, subject: Subject, gpu_total: float) -> Finding:
    """Peak memory of the rehearsal against the machine's."""
    if subject.device == "cuda":
        share = done.gpu_peak / gpu_total if gpu_total else 0.0
        found = f"{gb(done.gpu_peak)} of {gb(gpu_total)} on the fullest GPU, {gb(done.peak)} of main memory"
        verdict = "warning" if share > 0.95 else "ok"
        return Finding("peak memory", found, "below 95 % of the GPU", verdict)
    note = " (fewer layers and tokens than the real run)" if subject.replaced else ""
    return Finding("peak memory", f"{gb(done.peak)} of main memory{note}", "the machine's", "ok")
