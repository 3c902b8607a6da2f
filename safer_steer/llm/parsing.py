"""From a model's text to a validated object: raw JSON, a fence, a balanced object, a repaired one; never a guess
between two.
"""

import json
import re
from collections.abc import Iterator
from typing import TypeVar

from json_repair import repair_json
from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)
_FENCE = re.compile(r"```(?:json)?\s*\n?(.*?)```", re.DOTALL)
# Whole thoughts; one whose opening tag was in the prompt (as Qwen3's and R1's chat templates do); one that never ended.
_THOUGHTS = [
    re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL),
    re.compile(r"^.*</think(?:ing)?>", re.DOTALL),
    re.compile(r"<think(?:ing)?>.*$", re.DOTALL),
]


class ParseError(ValueError):
    """The text holds no single object that fits; the message says why, for the re-ask."""


def parse_structured(text: str, schema: type[Model]) -> Model:
    """Finds the one object of `schema` in a model's answer.

    Thoughts (`<think>`) are no part of the answer. Candidates are tried from strict to lenient: the whole text, fenced
    blocks, balanced objects in prose, and those repaired (single quotes, trailing commas). An object that never closes
    is not repaired: a torn number would become another number.

    Raises:
        ParseError: nothing fits, or several different objects do.
    """
    whole = text.strip()
    text = without_thoughts(text)
    problem = "the answer is empty" if not text else "no JSON object found"
    for find, decode in (
        (lambda: [whole], json.loads),
        (lambda: [text], json.loads),
        (lambda: _FENCE.findall(text), json.loads),
        (lambda: _balanced(text), json.loads),
        (lambda: _balanced(text), repair_json),
    ):
        fitting: list[Model] = []
        for candidate in find():
            try:
                data = decode(candidate.strip())
                fitting.append(schema.model_validate(json.loads(data) if isinstance(data, str) else data))
            except ValidationError as error:
                problem = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:4])
            except (ValueError, RecursionError):  # the latter: nested deeper than any answer that was asked for
                continue
        distinct = [item for index, item in enumerate(fitting) if item not in fitting[:index]]
        if len(distinct) == 1:
            return distinct[0]
        if distinct:
            raise ParseError(f"{len(distinct)} different objects fit; give exactly one")
    raise ParseError(problem)


def without_thoughts(text: str) -> str:
    """The text without what a reasoning model thought aloud before it answered."""
    for pattern in _THOUGHTS:
        text = pattern.sub("", text)
    return text.strip()


def _balanced(text: str) -> Iterator[str]:
    """Top-level {...} spans; braces inside double-quoted strings do not count."""
    depth, start, quoted, skip = 0, 0, False, False
    for index, char in enumerate(text):
        if skip:
            skip = False
        elif quoted:
            skip, quoted = char == "\\", char != '"'
        elif char == '"' and depth:
            quoted = True
        elif char == "{":
            start = index if depth == 0 else start
            depth += 1
        elif char == "}" and depth:
            depth -= 1
            if depth == 0:
                yield text[start : index + 1]
