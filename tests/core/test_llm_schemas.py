"""The schemas of all replies pass the published rules of strict mode: those that every provider has in common.

OpenAI, Azure, Anthropic and Gemini document them: the root is an object, every property is required, no other is
allowed, at most 100 properties in 5 levels, and only a few keywords; Azure and Anthropic take no ranges.
"""

import ast
from pathlib import Path

import pytest

from data_construction.bootstrap.rollout import Rewrite, ScoredTurn
from data_construction.expand import Expansion
from data_construction.history import RequestRisk
from data_construction.probe import Probe
from data_construction.quality.writer import RefusalVerdict
from data_construction.red_team.forensics import Forensics
from data_construction.red_team.intent import Intent
from data_construction.red_team.plan import Script
from data_construction.red_team.simulate import Leak
from safer_steer.llm.schemas import strict_schema
from safer_steer.llm.structured import response_format
from safer_steer.rubric import JudgeScores
from safer_steer_verl.interactions.safety_tutor import TutorReply

ROOT = Path(__file__).parents[2]
# Schema -> the template that asks for it.
REPLIES = {
    JudgeScores: "evaluation/multi_turn/judge.jinja",
    TutorReply: "verl/safer_steer_verl/interactions/safety_tutor.jinja",
    ScoredTurn: "data_construction/prompts/turn_scores.jinja",
    Rewrite: "data_construction/prompts/rewrite.jinja",
    RequestRisk: "data_construction/prompts/request_risk.jinja",
    Leak: "data_construction/prompts/leak.jinja",
    Script: "data_construction/prompts/plan.jinja",
    Intent: "data_construction/prompts/intent.jinja",
    Forensics: "data_construction/prompts/forensics.jinja",
    Probe: "data_construction/prompts/probe.jinja",
    Expansion: "data_construction/prompts/expand.jinja",
    RefusalVerdict: "data_construction/prompts/refusal.jinja",
}
KEYWORDS = {"type", "description", "enum", "const", "anyOf", "items", "properties", "required", "additionalProperties"}
TYPES = {"string", "number", "boolean", "integer", "object", "array", "null"}


def nodes(schema, depth=1):
    """Every schema inside a schema, with its depth of objects."""
    yield schema, depth
    deeper = depth + (schema.get("type") == "object")
    for child in [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]:
        yield from nodes(child, deeper)
    if "items" in schema:
        yield from nodes(schema["items"], deeper)


def fields(schema):
    """Every property's name and type, in the order in which it is written."""
    for name, child in schema.get("properties", {}).items():
        yield name, child.get("type")
        yield from fields(child)
        yield from fields(child.get("items", {}))


@pytest.mark.parametrize("schema", REPLIES)
def test_it_is_strict(schema):
    root = strict_schema(schema)
    assert root["type"] == "object"
    assert not {"anyOf", "enum"} & root.keys()
    found = list(nodes(root))
    for node, depth in found:
        assert node.keys() <= KEYWORDS, node
        assert node.get("type", "null") in TYPES
        assert "type" in node or "anyOf" in node
        assert depth <= 5
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
            assert node["required"] == list(node["properties"])
        if node.get("type") == "array":
            assert "items" in node
        if node.get("type") == "integer":
            assert len(node["enum"]) <= 10, "its range, as values"
    assert sum(len(node.get("properties", {})) for node, _ in found) <= 100


WITH_NUMBERS = [schema for schema in REPLIES if "integer" in {kind for _, kind in fields(strict_schema(schema))}]


@pytest.mark.parametrize("schema", WITH_NUMBERS)
def test_reasons_come_before_numbers_in_the_schema_and_in_the_prompt(schema):
    order = [(name, kind) for name, kind in fields(strict_schema(schema)) if kind != "object"]
    numbers = [name for name, kind in order if kind == "integer"]
    reasons = [name for name, _ in order if "rationale" in name or name in ("diagnosis", "goal")]
    names = [name for name, _ in order]
    prompt = (ROOT / REPLIES[schema]).read_text(encoding="utf-8")
    wanted = prompt[prompt.rindex("Answer with") :]
    assert reasons, f"{schema.__name__} asks for numbers without a reason"
    for number in numbers:
        for reason in reasons:
            assert names.index(reason) < names.index(number)
            if number in wanted and reason in wanted:
                assert wanted.index(f'"{reason}"') < wanted.index(f'"{number}"')


def test_an_optional_field_is_required_and_may_be_null():
    question = strict_schema(TutorReply)["properties"]["new_question"]
    assert question["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert response_format(TutorReply, "tutor")["json_schema"]["strict"] is True


def test_no_reply_is_missing_here():
    """Every class that a call names as its answer's schema is checked above."""
    known = {schema.__name__ for schema in REPLIES}
    asked = set()
    for path in [*ROOT.glob("data_construction/**/*.py"), *ROOT.glob("evaluation/**/*.py"), *ROOT.glob("verl/**/*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        asked |= {
            base_of.name
            for base_of in ast.walk(tree)
            if isinstance(base_of, ast.ClassDef) and any(getattr(base, "id", "") == "Answer" for base in base_of.bases)
        }
        asked |= {
            call.args[1].id
            for call in ast.walk(tree)
            if isinstance(call, ast.Call)
            and getattr(call.func, "attr", "") == "structured"
            and len(call.args) > 1
            and isinstance(call.args[1], ast.Name)
        }
    assert asked - {"schema", "ExpandedTurn", "PlannedTurn"} == known
