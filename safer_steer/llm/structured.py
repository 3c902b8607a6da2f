"""One pydantic model is both the request's JSON schema and the parser of the answer; a wrong answer is asked for once
more.
"""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel

from safer_steer.llm.parsing import ParseError, parse_structured
from safer_steer.llm.replies import Reply, Structured
from safer_steer.verdict import Outcome

Model = TypeVar("Model", bound=BaseModel)
TRIES = 2  # the request and one re-ask
SHOWN = 120  # characters of an unusable answer in its detail


def response_format(schema: type[BaseModel], name: str) -> dict[str, Any]:
    """The request's `response_format` for answers of `schema`."""
    return {"type": "json_schema", "json_schema": {"name": name, "schema": _json_schema(schema), "strict": True}}


async def ask(
    call: Callable[[dict[str, Any]], Awaitable[Reply]], request: dict[str, Any], schema: type[Model]
) -> tuple[Structured[Model], str | None]:
    """Asks, parses, checks the ranges, and asks once more if that fails.

    Args:
        call: sends a request.
        request: the request, with its `response_format`.
        schema: what the answer must be.

    Returns:
        The result, and the text it was read from (None without a value). The outcome of a failure is that of the last
        answer: `truncated` when it was cut, else `unparsed`.
    """
    attempt, outcome, detail = request, Outcome.UNPARSED, ""
    for _ in range(TRIES):
        reply = await call(attempt)
        if reply.text is None:
            return Structured(reply.outcome, None, reply.detail), None
        try:
            return Structured(Outcome.OK, parse_structured(reply.text, schema)), reply.text
        except ParseError as error:
            cut = reply.outcome == Outcome.TRUNCATED
            outcome = Outcome.TRUNCATED if cut else Outcome.UNPARSED
            problem = f"{error}{'; it was cut at the length limit, be brief' if cut else ''}"
            detail = f"{problem}; got {reply.text[:SHOWN]!r}"
            attempt = request | {"messages": [*request["messages"], *_again(reply.text, problem)]}
    return Structured(outcome, None, detail), None


def _again(text: str, problem: str) -> list[dict[str, Any]]:
    words = f"That answer cannot be used: {problem}. Answer with exactly one JSON object that fits the schema."
    return [{"role": "assistant", "content": text or "(empty)"}, {"role": "user", "content": words}]


@lru_cache(maxsize=64)
def _json_schema(schema: type[BaseModel]) -> dict[str, Any]:
    return schema.model_json_schema()
