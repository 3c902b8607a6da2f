"""Config errors all at once, the shared command line, run folders that lock, resume and refuse."""

import json
from typing import Annotated

import pytest
from pydantic import model_validator

from safer_steer.cli import run_cli
from safer_steer.config import Operational, Section, help_text, load_config, load_raw
from safer_steer.errors import UserError
from safer_steer.load import Load
from safer_steer.plan import Plan
from safer_steer.runs import Run


class Inner(Section):
    rate: float
    size: int


class Outer(Section):
    root: str
    inner: Inner
    concurrency: Annotated[int, Operational] = 1


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"root: {tmp_path}\ninner: {{rate: 0.5, size: 3}}\n")
    return path


def test_overrides_and_interpolation(config_file):
    config_file.write_text("root: a\ninner: {rate: 0.5, size: 3}\n")
    config = load_config(Outer, config_file, ["inner.size=7", "root=${oc.env:HOME}/x"])
    assert config.inner.size == 7
    assert config.root.endswith("/x")


def test_a_file_holds_what_differs_from_its_base(config_file, tmp_path):
    (tmp_path / "sub").mkdir()
    middle, top = tmp_path / "sub" / "middle.yaml", tmp_path / "top.yaml"
    middle.write_text("base: ../config.yaml\ninner: {size: 4}\n")
    top.write_text("base: sub/middle.yaml\nconcurrency: 2\n")
    config = load_config(Outer, top, ["inner.rate=0.25"])
    assert config.model_dump() == {"root": str(tmp_path), "inner": {"rate": 0.25, "size": 4}, "concurrency": 2}
    top.write_text("base: sub/middle.yaml\ninner: null\n")
    with pytest.raises(UserError, match="inner: missing, a value is required"):
        load_config(Outer, top)
    top.write_text("base: nowhere.yaml\n")
    with pytest.raises(UserError, match=r"nowhere.yaml \(the base of .*top.yaml\)"):
        load_config(Outer, top)
    top.write_text("base: top.yaml\n")
    with pytest.raises(UserError, match="base names a file that has this one as its base"):
        load_config(Outer, top)


def test_help_names_every_key_with_its_default_and_its_docstring():
    class Named(Section):
        inner: dict[str, Inner]
        limit: int | None = None
        """Rows; null: all."""

    assert help_text(Named) == [
        "inner (required)",
        "inner.NAME.rate (required)",
        "inner.NAME.size (required)",
        "limit = null: Rows; null: all.",
    ]


def test_all_errors_come_at_once_with_what_is_allowed(config_file):
    with pytest.raises(UserError) as caught:
        load_config(Outer, config_file, ["inner.size=x", "inner.sise=4", "rooot=1", "inner.rate=null"])
    text = str(caught.value)
    for part in ("inner.size", "got 'x'", "inner.sise: unknown key; allowed here: rate, size", "rooot", "inner.rate"):
        assert part in text
    assert "\n" not in text


@pytest.mark.parametrize("override", ["inner.size=true", "inner.rate=yes", "concurrency=on"])
def test_a_switch_is_no_number(config_file, override):
    with pytest.raises(UserError, match=rf"{override.split('=')[0].split('.')[-1]} should be a number, got true"):
        load_config(Outer, config_file, [override])


def test_a_rule_about_several_keys_does_not_print_the_section(config_file):
    class Both(Outer):
        @model_validator(mode="after")
        def _never(self):
            raise ValueError("root and rate do not go together")

    with pytest.raises(UserError) as caught:
        load_config(Both, config_file)
    assert str(caught.value).endswith("(whole file): Value error, root and rate do not go together")


@pytest.mark.parametrize("overrides", [["no-equals-sign"], ["root=${missing}"]])
def test_bad_overrides_are_user_errors(config_file, overrides):
    with pytest.raises(UserError):
        load_config(Outer, config_file, overrides)


def test_cli_dry_run_touches_nothing_and_errors_exit_with_2(config_file, capsys):
    def fail(config):
        raise UserError("bad")

    for argv, code in (
        ([str(config_file), "--dry-run"], 0),
        ([str(config_file)], 2),
        (["missing.yaml"], 2),
        (["inner.size=x"], 2),
    ):
        with pytest.raises(SystemExit) as caught:
            run_cli("doc", Outer, lambda config: Plan(["line"], {"judge": Load(7)}), fail, str(config_file), argv)
        assert caught.value.code == code
    output = capsys.readouterr()
    assert "calls of judge: at most 7" in output.out
    assert all(line.startswith("error: ") for line in output.err.strip().splitlines())


def test_run_finishes_resumes_and_refuses_a_changed_config(config_file, tmp_path, capsys):
    config = load_config(Outer, config_file)
    with Run.open(tmp_path / "run", config, stage="demo") as run:
        assert not run.finished
    with Run.open(tmp_path / "run", config, stage="demo") as run:
        run.finish({"kept": 3})
    with Run.open(tmp_path / "run", load_config(Outer, config_file, ["concurrency=9"]), stage="demo") as run:
        assert run.finished
        run.say_finished()
    assert "demo: already finished, nothing to do; 3 kept" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["attempts"] == 2
    assert record["status"] == "finished"
    with pytest.raises(UserError, match=r"config\.inner\.size 3 -> 4"):
        Run.open(tmp_path / "run", load_config(Outer, config_file, ["inner.size=4"]), stage="demo")


def test_attempts_that_were_killed_are_told(tmp_path, capsys):
    def opened():
        return Run.open(tmp_path / "run", {}, stage="demo")

    with opened():
        pass
    for _ in range(2):
        opened()._lock.release()  # as a kill does
    with opened() as run:
        run.finish({"kept": 3})
    assert "3 kept; calls, cost and time of 2 killed attempts not counted; " in capsys.readouterr().out
    with opened() as run:
        assert run.finished
    assert (run.record["attempts"], run.record["killed"]) == (4, 2)


def test_a_server_counts_where_both_records_name_it(tmp_path):
    def opened(facts):
        with Run.open(tmp_path / "run", {"size": 3} | facts, stage="demo"):
            pass

    one, other = ({"service own": {"checkpoint": name}} for name in ("a/b", "a/c"))
    opened({})  # as an earlier version made it, or with the model at an address
    opened(one)
    (tmp_path / "run" / "run.json").unlink()
    opened(one)
    opened({})
    with pytest.raises(UserError, match=r'changed: config\.service own\.checkpoint "a/b" -> "a/c"; choose'):
        opened(other)


def test_missing_input_is_named(config_file, tmp_path):
    with pytest.raises(UserError, match="file not found: nowhere"):
        Run.open(tmp_path / "run", load_config(Outer, config_file), stage="demo", inputs={"data": "nowhere"})


@pytest.mark.parametrize(
    "text",
    ["5", "true", "- a", "a: 1\na: 2", "base: [x]", "base: 3", "a: " + "[" * 2000 + "]" * 2000, "a: ${b}"],
    ids=range(8),
)
def test_a_file_that_is_no_config_is_said(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.yaml"):
        load_raw(path)
