"""Attacks that did not become dialogues are stored apart: rejects with a transcript -> `attack_failures.jsonl`."""

from pydantic import BaseModel

from safer_steer.store import JsonlStore
from safer_steer.verdict import Outcome

FILE = "attack_failures.jsonl"


class RejectStore(JsonlStore):
    """`rejects.jsonl`, which holds every reject with its reason; the transcripts of attacks go to `FILE` next to it.

    The transcript is stored first, so a killed run never has a reject whose transcript is missing. Rows lost to
    transport are tried again and keep theirs.
    """

    def _open(self) -> None:
        super()._open()
        self._failures = JsonlStore(self.path.with_name(FILE))

    def append(self, row: BaseModel | dict) -> bool:
        """Appends one reject, unless its id is there."""
        if "transcript" in row and row["outcome"] != Outcome.TRANSPORT:
            self._failures.append(row)
            row = {name: value for name, value in row.items() if name != "transcript"}
        return super().append(row)

    def close(self) -> None:
        """Writes everything to disk and closes both files."""
        self._failures.close()
        super().close()
