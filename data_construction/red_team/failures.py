"""Attacks that did not become dialogues are stored apart: rejects with a transcript -> `attack_failures.jsonl`."""

from pydantic import BaseModel

from safer_steer.store import JsonlStore
from safer_steer.verdict import Outcome

FILE = "attack_failures.jsonl"


class RejectStore(JsonlStore):
    """`rejects.jsonl`, which holds every reject with its reason; the transcripts of attacks go to `failures` instead.

    The transcript is stored first, so a killed run never has a reject whose transcript is missing. Rows lost to
    transport are tried again and keep theirs.
    """

    failures: JsonlStore | None = None

    def append(self, row: BaseModel | dict) -> bool:
        """Appends one reject, unless its id is there."""
        if self.failures is not None and "transcript" in row and row["outcome"] != Outcome.TRANSPORT:
            self.failures.append(row)
            row = {name: value for name, value in row.items() if name != "transcript"}
        return super().append(row)
