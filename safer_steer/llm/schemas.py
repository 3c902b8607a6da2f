"""JSON schemas that every provider's strict mode takes: OpenAI's, Azure's, Anthropic's, Gemini's and grammar engines'.

What they have in common is little: each property is required and no other allowed, a type is plain or `anyOf`, ranges
of integers are lists of values, and there are no defaults, titles or references.
"""

from functools import lru_cache
from typing import Any

from pydantic import BaseModel

LEFT_OUT = ("title", "default", "minimum", "maximum")


@lru_cache(maxsize=64)
def strict_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The schema of an answer, for a request. The parser checks ranges by the model itself.

    Raises:
        RecursionError: the model contains itself.
    """
    found = schema.model_json_schema()
    plain: dict[str, Any] = _strict(found, found.pop("$defs", {}))
    return plain


def _strict(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_strict(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if name := node.get("$ref"):
        return _strict(definitions[name.removeprefix("#/$defs/")], definitions)
    plain = {key: _strict(value, definitions) for key, value in node.items() if key not in (*LEFT_OUT, "properties")}
    if node.get("type") == "integer" and {"minimum", "maximum"} <= node.keys():
        plain["enum"] = list(range(node["minimum"], node["maximum"] + 1))
    if node.get("type") == "object":
        properties = {name: _strict(value, definitions) for name, value in node.get("properties", {}).items()}
        plain |= {"properties": properties, "required": list(properties), "additionalProperties": False}
    return plain
