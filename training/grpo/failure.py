"""Why a run of verl ended, in one line: who died and why, our own reason, or what the engine raised."""

import json
import signal
from pathlib import Path
from typing import Any

import psutil

from safer_steer.deaths import MemoryLog, cause_of_death
from safer_steer.failures import is_out_of_memory
from safer_steer_verl.roles import OTHER_ADVICE, advice

LESS_MEMORY = (
    "it ran out of memory: lower actor_rollout_ref.rollout.gpu_memory_utilization or the *_micro_batch_size_per_gpu of "
    "actor, rollout and ref, then run the same command again: it continues from the last checkpoint"
)
END_LINES = 3


def failure_message(code: int, failure_path: Path, log_path: Path, memory: MemoryLog) -> str:
    """Why verl ended with `code`, in one line.

    Args:
        code: its exit status, -N for a signal.
        failure_path: what its first process wrote about it, if it still could.
        log_path: its log.
        memory: of this machine.
    """
    reason = json.loads(failure_path.read_text(encoding="utf-8")) if failure_path.exists() else {}
    if reason.get("kind") == "user":
        return reason["message"]
    if reason.get("kind") == "died":
        return f"{_who_died(reason['deaths'], memory)}; full log: {log_path}"
    if code == -signal.SIGKILL:
        return f"verl's first process {cause_of_death(code, memory, OTHER_ADVICE)}; full log: {log_path}"
    said = reason.get("message") or _end(log_path)
    message = f"verl ended with code {code}: {said}; full log: {log_path}"
    return f"{message}; {LESS_MEMORY}" if is_out_of_memory(said) else message


def _who_died(deaths: list[dict[str, Any]], memory: MemoryLog) -> str:
    """The first death with its cause; those after it mostly follow from it."""
    first, *others = deaths
    here = first["node"] in {address.address for found in psutil.net_if_addrs().values() for address in found}
    cause = first["detail"] or cause_of_death(first["code"], memory if here else None, advice(first["role"]))
    said = f"the {first['role']} ({first['name']}, process {first['pid']} on {first['node']}): {cause}"
    if first["detail"]:
        said += "; run the same command again: it continues from the last checkpoint"
    also = ", ".join(sorted({f"{other['role']} {other['pid']}" for other in others}))
    return f"{said}; gone with it: {also}" if also else said


def _end(log_path: Path) -> str:
    """The last lines of the log, where its first process could not say what happened."""
    lines = [line.strip() for line in log_path.read_text(encoding="utf-8", errors="replace").splitlines()]
    return " | ".join(line[:300] for line in list(filter(None, lines))[-END_LINES:]) or "no word of it"
