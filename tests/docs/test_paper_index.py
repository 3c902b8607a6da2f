"""docs/paper_index.md: every `path:function` exists, every `path:key=value` is what a config, or a schema's default,
says, and all is there.
"""

import ast
import importlib
import re

import yaml
from omegaconf import OmegaConf

from doc_pages import ROOT, code_spans
from safer_steer.config import with_base

INDEX = ROOT / "docs" / "paper_index.md"
SPANS = code_spans(INDEX)
PLACES = sorted({span for span in SPANS if re.fullmatch(r"[^\s:]+\.py:[\w.]+", span)})
VALUES = sorted({span for span in SPANS if re.fullmatch(r"[\w/]+\.yaml:[\w.]+=.*", span)})
DEFAULTS = sorted({span for span in SPANS if re.fullmatch(r"[\w/]+\.py:\w+\.\w+=.*", span)})
# What the paper has under each number, by a word that its row must hold.
EQUATIONS = {
    3: "turn scores", 4: "turn reward", 6: "seeds", 7: "probe", 8: "expand", 9: "strong red-team", 10: "success filter",
    11: "disjoint seed sets", 12: "red-blue", 13: "red-blue", 14: "scoring", 15: "keep rule", 16: "SFT loss",
    17: "Safety Tutor", 18: "TCSR", 19: "group", 20: "advantage", 21: "loss", 22: "survival",
}  # fmt: skip


def numbers(word: str) -> set[int]:
    """The numbers that the index's first column names after a word, ranges included."""
    found = set()
    for row in INDEX.read_text(encoding="utf-8").splitlines():
        first = row.split("|")[1] if row.startswith("|") else row if row.startswith("## ") else ""
        for low, high in re.findall(rf"{word} (\d+)(?:-(\d+))?", first):
            found |= set(range(int(low), int(high or low) + 1))
    return found


def row_of(equation: int) -> str:
    """What the row of an equation says it is."""
    for row in INDEX.read_text(encoding="utf-8").splitlines():
        found = re.match(r"\| Eq\. (\d+)(?:-(\d+))? \|([^|]*)\|", row)
        if found and int(found[1]) <= equation <= int(found[2] or found[1]):
            return found[3]
    return ""


def test_every_equation_is_in_it_under_its_number():
    for number, what in EQUATIONS.items():
        assert what in row_of(number), f"Eq. {number}: {row_of(number)!r} does not say {what!r}"
    assert numbers(r"Eq\.") == set(EQUATIONS)


def test_every_table_and_figure_is_in_it():
    assert set(range(1, 10)) <= numbers("Table")
    assert 4 in numbers(r"Fig\.")


def test_functions_exist():
    assert len(PLACES) > 30
    for place in PLACES:
        path, _, name = place.partition(":")
        assert (ROOT / path).is_file(), f"{place}: no file {path}"
        body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
        for part in name.split("."):
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            found = next((node for node in body if isinstance(node, kinds) and node.name == part), None)
            assert found is not None, f"{path} has no {name}"
            body = found.body


def test_configs_say_so():
    assert len(VALUES) > 40
    for entry in VALUES:
        path, _, setting = entry.partition(":")
        key, _, value = setting.partition("=")
        said = OmegaConf.select(with_base(ROOT / path), key, throw_on_missing=True)
        assert said is not None, f"{path} has no {key}"
        stated = yaml.safe_load(value)
        if isinstance(said, float | int) and not isinstance(said, bool):
            stated = float(stated)  # YAML 1.1 reads 1e-5 as text
        assert said == stated, entry


def test_schemas_say_so():
    assert DEFAULTS
    for entry in DEFAULTS:
        path, schema, field, value = re.fullmatch(r"([\w/]+)\.py:(\w+)\.(\w+)=(.*)", entry).groups()
        module = importlib.import_module(path.removeprefix("verl/").replace("/", "."))
        assert getattr(module, schema).model_fields[field].default == yaml.safe_load(value), entry
