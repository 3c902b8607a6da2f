"""The circuit breaker: a dead endpoint stops the whole run, with one message, instead of failing row by row.

Many failures in a row are a suspicion only: rows that fail whenever they are asked come together when they are tried
again. So a plain question decides: an endpoint that answers it is alive, and the rows are at fault.
"""

from safer_steer.errors import RunAborted
from safer_steer.llm.config import EndpointConfig

FAILURES = 20  # calls in a row without any answer, each after all its tries, or refused: a suspicion
QUESTION = [{"role": "user", "content": "Hello"}]


class Breaker:
    """Counts calls that ended without an answer, and requests that the endpoint refuses; any answer starts the counts
    again.

    While it is open a new call gets one try, so that a server that is back closes it; calls under way end at once.
    """

    def __init__(self, role: str, config: EndpointConfig):
        self._role, self._config = role, config
        self._failures = self._refused = 0
        self._open = ""  # why the run stops

    def answered(self) -> None:
        """The endpoint is alive."""
        self._failures = self._refused = 0
        self._open = ""

    def failed(self) -> bool:
        """A call ended without an answer; True when the plain question is due."""
        self._failures += 1
        return self._failures % FAILURES == 0 or bool(self._open)

    def refused(self) -> bool:
        """A request is refused for good; True when the plain question is due."""
        self._failures, self._refused = 0, self._refused + 1
        return self._refused % FAILURES == 0

    def open(self, detail: str) -> None:
        """The plain question got no answer either.

        Args:
            detail: the last call's.

        Raises:
            RunAborted: always.
        """
        urls = ", ".join(self._config.urls())
        if self._failures >= FAILURES:
            self._open = (
                f"{self._role}: {self._failures} calls in a row got no answer from {urls} "
                f"after up to {self._config.max_retries} retries each, the last: {detail}; "
                "check the server, then run the same command again"
            )
            raise RunAborted(self._open)
        raise RunAborted(
            f"{self._role}: {urls} refused {self._refused} requests in a row, the last: {detail}; correct the role's "
            "model or its parameters, then run the same command again"
        )

    def check(self) -> None:
        """To be asked before another try.

        Raises:
            RunAborted: the endpoint is dead.
        """
        if self._open:
            raise RunAborted(self._open)
