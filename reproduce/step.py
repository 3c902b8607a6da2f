"""A step: one ordinary command of a stage, what it waits for, and how one sees that it is done. Data, no process."""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from reproduce.forecast import Work
from safer_steer.config import with_base
from safer_steer.errors import UserError
from safer_steer.runs import is_finished
from safer_steer.store import write_atomic

# Where Hydra finds what a config's `defaults` name, besides the config's own folder; verl's own files are pinned.
HYDRA_CONFIGS = Path("verl/safer_steer_verl/hydra_configs")


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: unique, such as `seed_0/sft`; the part after the slash names its log and its time record.
        command: what a user would type.
        config: the config file that the command reads.
        folder: the run folder of the seed; logs, times and stamps are below it.
        output: what the command writes; to make a step again, remove it.
        needs: names of the steps that must be done before.
        records: run records that say `finished` once the step is done.
        files: files that are there once the step is done.
        work: what it has to do, where that is forecast.
    """

    name: str
    command: tuple[str, ...]
    config: Path
    folder: Path
    output: Path
    needs: tuple[str, ...] = ()
    records: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    work: Work | None = None

    @property
    def short(self) -> str:
        """The name within its seed."""
        return self.name.rpartition("/")[2]

    @property
    def log(self) -> Path:
        """Where the command's output goes."""
        return self.folder / "logs" / f"{self.short}.log"

    def measured(self) -> tuple[str, ...]:
        """The command as it is started: its seconds and memory are recorded in `<folder>/stages/`."""
        return (
            sys.executable, "-m", "miniature.measure", self.short, "--root", str(self.folder), "--", *self.command,
        )  # fmt: skip

    def done(self) -> bool:
        """Whether the step's own records say that it is finished."""
        return all(map(is_finished, self.records)) and all(path.is_file() for path in self.files)

    def stamp(self) -> None:
        """Notes what the step is started with; where nothing of it is there, its time is measured from zero."""
        if not self.output.exists():
            (self.folder / "stages" / f"{self.short}.json").unlink(missing_ok=True)
        write_atomic(self._stamp_file, json.dumps(self._facts(), indent=1) + "\n")

    def check_stamp(self) -> None:
        """Refuses a finished step that was made by another command or config; what its stamp does not say, such as one
        of before configs were compared with all that they inherit, is taken as it is.

        Raises:
            UserError: names what changed, and the folder to remove.
        """
        if not self._stamp_file.is_file():
            return
        old, new = json.loads(self._stamp_file.read_text(encoding="utf-8")), self._facts()
        changed = [name for name in new if old.get(name, new[name]) != new[name]]
        if changed:
            raise UserError(
                f"{self.name} was made with another {' and '.join(changed)} ({self._stamp_file}): then "
                f"{' '.join(old['command'])!r}, now {' '.join(self.command)!r} with {self.config}; remove "
                f"{self.output} and what was made from it, undo the change, or choose another --root"
            )

    @property
    def _stamp_file(self) -> Path:
        return self.folder / "steps" / f"{self.short}.json"

    def _facts(self) -> dict[str, object]:
        said = json.dumps(_contents(self.config, self.command), sort_keys=True, default=str)
        return {"command": list(self.command), "configuration": hashlib.sha256(said.encode()).hexdigest()[:16]}


def _contents(config: Path, words: Sequence[str]) -> list[Any]:
    """What a config says, laid over its `base`, and then each file that its `defaults` name; without comments.

    `words` of the command, such as layout=two_nodes, choose from a group of Hydra's.
    """
    found = [OmegaConf.to_container(with_base(config), resolve=False)]
    chosen = dict(word.split("=", 1) for word in words if "=" in word)
    for entry in found[0].get("defaults", []):
        for group, name in (entry if isinstance(entry, dict) else {"": entry}).items():
            places = [folder / group / f"{chosen.get(group, name)}.yaml" for folder in (config.parent, HYDRA_CONFIGS)]
            for path in [place for place in places if place.is_file()][:1]:
                found += _contents(path, words)
    return found
