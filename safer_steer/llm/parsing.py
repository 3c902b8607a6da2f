"""From a model's text to a validated object. A number is taken only where a strict JSON parser reads it as that number
inside the one object that is the answer; anything else is a `ParseError`, never a guess.
"""

import json
import re
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from safer_steer.answer_tags import THOUGHT_TAGS, first_visible, thought_marks
from safer_steer.llm.repair import plain_json

Model = TypeVar("Model", bound=BaseModel)
LARGEST_DIGITS = 15  # of an integer that is written as 3.0 or 3e0
_THOUGHT, _THOUGHT_END = (
    re.compile("|".join(mark.pattern for mark in marks), re.IGNORECASE)
    for marks in zip(*thought_marks(THOUGHT_TAGS), strict=True)
)
_TAG = re.compile(r"<([\w:-]+)>")
HOLDERS = ("answer", "final_answer", "json", "output", "response", "result", "verdict")  # tags that an answer may be in


class ParseError(ValueError):
    """The text holds no single object that fits; the message says why, for the re-ask."""


def parse_structured(text: str, schema: type[Model]) -> Model:
    """Reads the one object of `schema` in a model's answer.

    Around the object there may be a thought (`<think>`) before it, a fence and prose, none of it with a brace. Inside
    it, single quotes and trailing commas are read as JSON. Whatever could be understood in two ways is an error: a key
    given twice, another object next to it, a brace that never closes, a number with anything before or after it, a
    list around it, a thought before it that never ends, and behind an object with numbers words that may correct one.

    Raises:
        ParseError: nothing fits, or it is not clear what does.
    """
    data, after = _the_object(without_thoughts(text[first_visible(text) :]))
    if (names := _number_fields(schema)) and (said := _correction(after, names)):
        raise ParseError(f"after the object stands {said!r}, which may correct it; give the object alone")
    try:
        return schema.model_validate_json(json.dumps(data), strict=True)
    except RecursionError as error:
        raise ParseError("the object is nested too deep") from error
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:4])
        raise ParseError("; ".join(problems)) from error


@lru_cache
def _number_fields(schema: type[BaseModel]) -> frozenset[str]:
    """The names of a schema's fields that are numbers, at any depth."""
    whole = schema.model_json_schema()
    objects = (part.get("properties", {}) for part in (whole, *whole.get("$defs", {}).values()))
    return frozenset(n for fields in objects for n, kind in fields.items() if kind.get("type") in ("integer", "number"))


def _correction(text: str, names: frozenset[str]) -> str:
    """The first digit of a text, or name of a number; "" for none."""
    found = re.search(rf"\d|\b(?:{'|'.join(map(re.escape, sorted(names)))})\b", text, re.IGNORECASE)
    return found[0] if found else ""


def without_thoughts(text: str) -> str:
    """The text without what a reasoning model thought aloud before it answered.

    The opening tag may have been in the prompt, as Qwen3's and R1's chat templates have it; then, after braces, the
    closing one must stand alone on its line. Tags inside an object are no thought: the object may quote them.
    """
    opening, end = _THOUGHT.search(text), _THOUGHT_END.search(text)
    before = text[: opening.start()] if opening else ""
    if not end:
        return text if before.strip() or not opening else ""
    if not opening or opening.start() > end.start():  # opened in the prompt
        thought, rest = text[: end.start()], text[end.end() :]
        alone = re.search(r"\n[ \t]*$", thought) and (not rest.strip() or rest.lstrip(" \t\r").startswith("\n"))
        if "{" in thought and not _closed(thought):
            return text
        return rest if "{" not in thought or alone else ""  # "": perhaps a thought, perhaps a quotation
    if not _closed(before):
        return text
    return before + text[end.end() :] if _closed(text[: end.start()]) else ""


def _closed(text: str) -> bool:
    """Whether every brace of a text is closed; braces inside double-quoted strings of an object do not count."""
    depth, quoted, skip = 0, False, False
    for char in text:
        if skip:
            skip = False
        elif quoted:
            skip, quoted = char == "\\", char != '"'
        elif char == '"' and depth:
            quoted = True
        elif char == "{":
            depth += 1
        elif char == "}" and depth:
            depth -= 1
    return depth == 0


def _the_object(text: str) -> tuple[dict[str, Any], str]:
    """The object of a text without thoughts, from its first brace to its last one, and what stands after it.

    The same object several times is one.

    Raises:
        ParseError: there is none, several different ones, or one that is no JSON.
    """
    start, end = text.find("{"), text.rfind("}") + 1
    if not 0 <= start < end:
        raise ParseError("no JSON object found" if text.strip() else "the answer is empty")
    if "{" in text[end:] or "}" in text[:start]:
        raise ParseError("there is a brace next to the object that is opened or closed alone")
    if any(not _THOUGHT_END.search(text, mark.end(), start) for mark in _THOUGHT.finditer(text, 0, start)):
        raise ParseError("the object stands after a thought that does not end, which may be no answer")
    if text[:start].rstrip().endswith("[") or text[end:].lstrip().startswith("]"):
        raise ParseError("the object stands in a list; give the object alone")
    if tag := _tag_around(text, start, end):
        raise ParseError(f"the object stands inside {tag}, which may be no answer; give the object alone")
    objects: list[dict[str, Any]] = []
    at = start
    try:
        while 0 <= at < end:
            found, after = _STRICT.raw_decode(text, at)
            objects.append(found)
            at = text.find("{", after)
            if "}" in text[after : at if at > 0 else end]:
                raise ParseError("a brace is closed that was never opened")
    except _DoubledKey as error:
        raise ParseError(f"the key {error} is given twice") from error
    except (ValueError, RecursionError) as error:  # the latter: nested deeper than any answer that was asked for
        if objects or isinstance(error, ParseError):
            raise ParseError("more than one object, or braces next to it; give exactly one object") from error
        return _repaired(text[start:end], error), text[end:]
    if any(item != objects[0] for item in objects[1:]):
        raise ParseError(f"{len(objects)} different objects; give exactly one")
    return objects[0], text[end:]


def _tag_around(text: str, start: int, end: int) -> str:
    """The tag that the object between two places stands in, "" for none but those of answers. A tag that is never
    closed counts where the text begins with it.
    """
    for tag in _TAG.finditer(text, 0, start):
        closing = f"</{tag[1]}>"
        around = closing in text[end:] or not text[: tag.start()].strip()
        if around and tag[1].lower() not in HOLDERS and closing not in text[tag.end() : start]:
            return tag[0]
    return ""


def _repaired(text: str, problem: Exception) -> dict[str, Any]:
    plain = plain_json(text)
    try:
        found = _LENIENT.decode(plain) if plain is not None else None
    except _DoubledKey as error:
        raise ParseError(f"the key {error} is given twice") from error
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ParseError(f"the object is no JSON ({problem})") from problem
    return found


class _DoubledKey(Exception):
    """An object gives a key twice, perhaps in two spellings."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DoubledKey(json.dumps(key))
        found[key] = value
    return found


def _number(text: str) -> int | float:
    """3.0 and 3e0 are the integer 3, exactly; any other is a float."""
    try:
        exact = Decimal(text)
        if exact.adjusted() < LARGEST_DIGITS and exact == exact.to_integral_value():
            return int(exact)
    except ArithmeticError:  # an exponent that no number has
        pass
    return float(text)


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_number, parse_constant=_constant)
_LENIENT = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_number, parse_constant=_constant, strict=False)
