"""One pydantic model is both the request's JSON schema and the parser of the answer; a wrong answer is asked for once
more, a cut one with a larger budget.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel

from safer_steer.llm.adaptation import lengthened
from safer_steer.llm.parsing import ParseError, parse_structured
from safer_steer.llm.replies import Reply, Structured, quoted
from safer_steer.llm.schemas import strict_schema
from safer_steer.verdict import Outcome

Model = TypeVar("Model", bound=BaseModel)
TRIES = 2  # the request and one re-ask
_OBJECT_FIRST = re.compile(r"\s*(?:```\w*\s*)?\{")


def response_format(schema: type[BaseModel], name: str) -> dict[str, Any]:
    """The request's `response_format` for answers of `schema`."""
    return {"type": "json_schema", "json_schema": {"name": name, "schema": strict_schema(schema), "strict": True}}


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
    attempt, outcome, detail, said = request, Outcome.UNPARSED, "", None
    for _ in range(TRIES):
        reply = await call(attempt)
        if reply.text is None and not (reply.cut or reply.outcome == Outcome.UNPARSED):
            return Structured(reply.outcome, None, reply.detail, reply.said), None
        try:
            return Structured(Outcome.OK, _parse(reply, schema)), reply.text
        except ParseError as error:
            outcome = Outcome.TRUNCATED if reply.cut else Outcome.UNPARSED
            said = reply.said if reply.text is None else reply.text
            detail = str(error) if reply.text is None else f"{error}; got {quoted(reply.text)}"
            attempt = request | {"messages": [*request["messages"], *_again(reply.text, str(error))]}
            attempt = lengthened(attempt) if reply.cut else attempt
    return Structured(outcome, None, detail, said), None


def _parse(reply: Reply, schema: type[Model]) -> Model:
    """The object in a reply. In a cut one only an object that it begins with: one that comes later may be a quotation
    in a thought that never ended.
    """
    if reply.text is None:
        raise ParseError(reply.detail)
    if reply.cut and not _OBJECT_FIRST.match(reply.text):
        raise ParseError("it was cut at the length limit before the object was whole, be brief")
    try:
        return parse_structured(reply.text, schema)
    except ParseError as error:
        if not reply.cut:
            raise
        raise ParseError(f"{error}; it was cut at the length limit, be brief") from error


def _again(text: str | None, problem: str) -> list[dict[str, Any]]:
    words = f"That answer cannot be used: {problem}. Answer with exactly one JSON object that fits the schema."
    return [{"role": "assistant", "content": text or "(empty)"}, {"role": "user", "content": words}]
