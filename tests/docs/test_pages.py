"""Links, paths and config keys that the README and the docs name exist."""

import re
import typing
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig
from pydantic import BaseModel

from data_construction.config import DataConfig
from doc_pages import PAGES, ROOT, code_spans, links
from evaluation.config import EvaluationConfig
from exports.config import ExportConfig
from rehearsal.settings import PREFIX, Settings
from safer_steer.dialogue import Dialogue
from safer_steer_verl.settings import SaferSteerSettings
from training.grpo.config import load_config
from training.sft.config import SftConfig

SCHEMAS = (DataConfig, SftConfig, EvaluationConfig, ExportConfig, Settings, Dialogue)  # rows too: `meta.category`
FOLDERS = (
    "safer_steer",
    "data_construction",
    "training",
    "exports",
    "verl",
    "evaluation",
    "miniature",
    "rehearsal",
    "reproduce",
    "configs",
    "scripts",
    "tests",
    "benchmarks",
    "docs",
)
SUFFIXES = ("md", "py", "yaml", "json", "jsonl", "png", "html", "jinja", "sh", "sqlite", "csv", "parquet")
WRITTEN = {"data_construction/red_team/strategies/curious_child.yaml"}  # by the reader of docs/own_strategy.md


@cache
def grpo_tree() -> DictConfig:
    return load_config("configs/grpo/qwen2_5_vl_3b.yaml", ["layout=one_node"]).tree


def models_in(annotation: object) -> list[type[BaseModel] | str]:
    """Schemas that a field's annotation holds; "any" stands for the values of a dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) is dict:
        return [annotation]
    return [found for part in typing.get_args(annotation) for found in models_in(part)]


def resolves(schema: object, parts: list[str]) -> bool:
    """Whether a dotted key is in a schema; any name stands below a dict."""
    if not parts:
        return True
    if typing.get_origin(schema) is dict:
        inside = models_in(typing.get_args(schema)[1])
        return len(parts) == 1 or any(resolves(found, parts[1:]) for found in inside)
    fields = schema.model_fields
    found = next((f for name, f in fields.items() if parts[0] in (name, f.alias)), None)
    if found is None:
        return False
    return len(parts) == 1 or any(resolves(inner, parts[1:]) for inner in models_in(found.annotation))


def in_tree(parts: list[str]) -> bool:
    """Whether a dotted key is in the composed config of Stage III: the method's by its schema, verl's by its YAML."""
    if parts[0] == "safer_steer":
        return resolves(SaferSteerSettings, parts[1:])
    node = grpo_tree()
    for part in parts:
        if not isinstance(node, DictConfig) or part not in node:
            return False
        node = node._get_node(part)
    return True


def config_keys(page: Path) -> list[str]:
    """Inline code of a page in the form a.b.c that is no file."""
    found = []
    for span in code_spans(page):
        key = span.partition("=")[0]
        if re.fullmatch(r"\+?[a-z_]\w*(\.[A-Za-z_]\w*)+", key) and key.rpartition(".")[2] not in SUFFIXES:
            found.append(key.lstrip("+").removeprefix(PREFIX))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    lost = [target for target in links(page) if not (page.parent / target).exists()]
    assert not lost, f"{page.name} links to {lost}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_paths_exist(page):
    lost = []
    for span in code_spans(page):
        path = re.split(r"[\s:]", span.removeprefix("bash "))[0]
        ours = path.split("/")[0] in FOLDERS and "/" in path and path not in WRITTEN
        if ours and not list(ROOT.glob(path.replace("NAME", "*"))):
            lost.append(path)
    assert not lost, f"{page.name} names {lost}"


@pytest.mark.parametrize(
    "package", ["data_construction", "evaluation", "training", "verl/safer_steer_verl", "benchmarks"]
)
def test_a_packages_map_names_what_is_there(package):
    page = next(
        folder / "README.md" for folder in (ROOT / package, (ROOT / package).parent) if (folder / "README.md").is_file()
    )
    rows = [line.split("|")[1] for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    lost = [name for name in named if not list((ROOT / package).glob(name))]
    assert named
    assert not lost, f"{page} names {lost}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_config_keys_resolve(page):
    lost = [
        key
        for key in config_keys(page)
        if not any(resolves(schema, key.split(".")) for schema in SCHEMAS) and not in_tree(key.split("."))
    ]
    assert not lost, f"{page.name} names keys that no config has: {lost}"


def test_the_checks_can_fail():
    assert resolves(DataConfig, ["sources", "NAME", "limit"])
    assert not resolves(DataConfig, ["sources", "NAME", "limits"])
    assert not resolves(SftConfig, ["training", "epoch"])
    assert not in_tree(["safer_steer", "tcsr", "alhpa"])
