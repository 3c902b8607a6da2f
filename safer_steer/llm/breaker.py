"""The circuit breaker: a dead endpoint stops the whole run, with one message, instead of failing row by row."""

from safer_steer.errors import RunAborted
from safer_steer.llm.config import EndpointConfig

FAILURES = 20  # calls in a row without any answer, each after all its tries, that stop the run


class Breaker:
    """Counts calls that ended without an answer, and requests that the endpoint refuses, each in a row; any answer
    starts the counts again.

    While it is open a new call gets one try, so that a server that is back closes it; calls under way end at once.
    """

    def __init__(self, role: str, config: EndpointConfig):
        self._role, self._config = role, config
        self._failures, self._detail, self._refused = 0, "", 0

    def answered(self) -> None:
        """The endpoint is alive."""
        self._failures = self._refused = 0

    def refused(self, detail: str) -> None:
        """The endpoint is alive and refuses a request for good.

        Raises:
            RunAborted: it refuses whatever it is asked, so it is no single row's fault.
        """
        self._failures, self._refused = 0, self._refused + 1
        if self._refused >= FAILURES:
            raise RunAborted(
                f"{self._role}: {', '.join(self._config.urls())} refused {self._refused} requests in a row, the last: "
                f"{detail}; correct the role's model or its parameters, then run the same command again"
            )

    def failed(self, detail: str) -> None:
        """A call ended without an answer.

        Raises:
            RunAborted: as `check`.
        """
        self._failures, self._detail = self._failures + 1, detail
        self.check()

    def check(self) -> None:
        """To be asked before another try.

        Raises:
            RunAborted: too many calls in a row got no answer.
        """
        if self._failures >= FAILURES:
            raise RunAborted(
                f"{self._role}: {self._failures} calls in a row got no answer from {', '.join(self._config.urls())} "
                f"after up to {self._config.max_retries} retries each, the last: {self._detail}; "
                "check the server, then run the same command again"
            )
