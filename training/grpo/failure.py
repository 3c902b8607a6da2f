"""Why a run of verl ended, in one line: who died and why, our own reason, or the last useful lines of its log."""

import json
import re
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
_RAY_PREFIX = re.compile(r"^(?:\x1b\[[0-9;]*m)*\([^()]*pid=\d+[^()]*\)(?:\x1b\[[0-9;]*m)* ?")
_USEFUL = re.compile(
    r"Error in _run_prompt|^\s*(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception)\b(?::|$)|\[Errno|Killed|out of memory|"
    r"No available memory"
)
_NOISE = re.compile(r"RayTaskError|ray::|no materializable|Traceback|during handling", re.IGNORECASE)


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
    lines = useful_lines(log_path.read_text(encoding="utf-8", errors="replace"))
    said = " | ".join(lines) or reason.get("message") or "no error line found"
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


def useful_lines(text: str, most: int = 4) -> list[str]:
    """The last distinct error lines of a verl log, without Ray's prefixes and wrappers, oldest first."""
    found: list[str] = []
    for line in text.splitlines():
        line = _RAY_PREFIX.sub("", line).strip()
        if _USEFUL.search(line) and not _NOISE.search(line):
            line = line[:300]
            if line in found:
                found.remove(line)
            found.append(line)
    return found[-most:]
