"""The paper's tables: their averages come out of our own code, print errors are flagged, ours stand beside them."""

import csv
import io
from pathlib import Path

import pytest
import yaml

from evaluation.multi_turn.aggregate import PassConfig, average
from evaluation.multi_turn.judge import VERDICTS
from evaluation.report.build import write_tables
from evaluation.report.formats import NOT_RUN, ResultTable, csv_text, latex, markdown
from evaluation.report.paper import AVERAGE, paper_tables, print_errors, system
from evaluation.report.paper_form import paper_form_tables
from evaluation.report.results import load_result
from safer_steer.store import write_jsonl

PRINTED = Path(__file__).parents[3] / "shared" / "paper_tables.yaml"


@pytest.mark.parametrize("name", ["table2", "table3", "table8", "table9"])
def test_printed_numbers_through_our_average_give_the_printed_average(name):
    for row, cells in paper_tables()[name].rows.items():
        pairs = [pair for column, pair in cells.items() if column != AVERAGE]
        groups = [{"safe": safe, "help": helpful, "joint": None, "n_dialogues": 1} for safe, helpful in pairs]
        result = average(groups, PassConfig())
        computed = f"the row's columns average {result['safe']:.2f} / {result['help']:.2f}"
        fits = (result["safe"], result["help"]) == pytest.approx(cells[AVERAGE], abs=0.011)
        assert fits != any(at == row and computed in said for at, said in print_errors(name)), f"{name} {row}"


def test_a_system_with_different_numbers_is_flagged_in_every_table():
    found = {}
    for name, table in paper_tables().items():
        for row, cells in table.rows.items() if name not in ("table1", "table2") else ():
            for column, (safe, helpful) in cells.items():
                found.setdefault((system(row), column), []).append((name, row, f"{safe:.2f} / {helpful:.2f}"))
    for (_, column), places in found.items():
        differs = len({pair for *_, pair in places}) > 1
        for name, row, pair in places:
            said = [said for at, said in print_errors(name) if at == row and said.startswith(f"{column} of the same")]
            assert [pair in text for text in said] == [True] * differs, (name, row, column)


@pytest.mark.skipif(not PRINTED.is_file(), reason="no ../shared/paper_tables.yaml next to this checkout")
def test_the_numbers_are_the_printed_ones():
    ours = yaml.safe_load(Path("evaluation/report/paper.yaml").read_text(encoding="utf-8"))
    for name, table in yaml.safe_load(PRINTED.read_text(encoding="utf-8")).items():
        assert (ours[name]["columns"], ours[name]["rows"]) == (table["columns"], table["rows"]), name


@pytest.fixture
def result(tmp_path, verdicts):
    """One model with all five subsets of STEER-Bench: passes in four of them, fails in dys."""
    rows = [
        row
        for name in ("beaver", "mmsafe", "vls", "spa", "steer_dys")
        for row in verdicts(name, [(3, 3) if name != "steer_dys" else (-3, 3)], name)
    ]
    write_jsonl(tmp_path / VERDICTS, rows)
    write_jsonl(tmp_path / "answers.jsonl", [])
    return load_result(tmp_path, "ours", "Ours", PassConfig())


def test_ours_stand_under_the_papers_rows(result, tmp_path):
    splits = {"STEER-Bench": [str(tmp_path / "bench.jsonl")], "STEER-SFT": ["missing.jsonl"]}
    bench = {"source": "test", "kind": "benign", "strategy": None, "images": ["images/a.png"]}
    first, second = {"user": "What colour is it?", "images": [0]}, {"user": "And the shape?"}
    rows = [{"id": "two", "turns": [first, second]}, {"id": "one", "turns": [first]}]
    write_jsonl(tmp_path / "bench.jsonl", [bench | row for row in rows])
    tables = {table.name: table for table in paper_form_tables([result], {"ours": "3B SaFeR-Steer"}, splits)}
    assert list(tables) == ["table1", "table2", "table3", "table4", "table5", "table8", "table9"]
    table3 = tables["table3"].rows
    place = next(i for i, row in enumerate(table3) if row[0] == "3B SaFeR-Steer")
    assert table3[place][1] == "paper †"
    assert table3[place + 1] == ["", "ours: Ours", *[(100.0, 100.0)] * 4, (0.0, 100.0), (80.0, 100.0)]
    assert table3[1] == ["", "ours", *[NOT_RUN] * 6]
    assert ["", "ours: Ours", (0.0, 100.0), (80.0, 100.0)] in tables["table4"].rows
    assert ["", "ours: Ours", (0.0, 100.0), (80.0, 100.0)] in tables["table5"].rows
    assert all(row[2:] == [NOT_RUN] * 6 for row in tables["table2"].rows if row[1].startswith("ours"))
    assert tables["table1"].rows[-1] == ["", "ours", "2", "1.50"]
    assert tables["table1"].rows[1] == ["", "ours", NOT_RUN, NOT_RUN]
    assert any("50.69 / 65.31" in note for note in tables["table8"].notes)
    further = {table.name: table for table in paper_form_tables([result], {}, {})}
    assert further["table3"].rows[-1][:2] == ["Ours", "ours"]


def test_an_average_needs_every_benchmark_of_the_table(tmp_path, verdicts):
    write_jsonl(tmp_path / VERDICTS, verdicts("a", [(3, 3)], "dys"))
    write_jsonl(tmp_path / "answers.jsonl", [])
    result = load_result(tmp_path, "m", "M", PassConfig())
    table3 = next(t for t in paper_form_tables([result], {}, {}) if t.name == "table3")
    assert table3.rows[-1] == ["M", "ours", *[NOT_RUN] * 4, (100.0, 100.0), NOT_RUN]


def test_formats_escape_and_keep_numbers():
    table = ResultTable(
        "t", "A & B <i>", ["name", "x_1"], [["50 % | <b>_", (1.234, 5.0)], ["=SUM(A1)", NOT_RUN]], ["† a note"]
    )
    text = markdown(table)
    assert "| 50 % \\| &lt;b>\\_ | 1.23 / 5.00 |" in text
    rows = list(csv.reader(io.StringIO(csv_text(table))))
    assert rows == [["name", "x_1 safe", "x_1 help"], ["50 % | <b>_", "1.23", "5.00"], ["'=SUM(A1)", *["not run"] * 2]]
    tex = latex(table)
    assert r"50 \% | \textless{}b\textgreater{}\_ & 1.23 / 5.00 \\" in tex
    assert r"\caption{A \& B \textless{}i\textgreater{}}" in tex


def test_tables_of_an_earlier_report_do_not_stay(tmp_path):
    summary, moves = (ResultTable(name, name, ["model"], [["m"]]) for name in ("summary", "moves"))
    write_tables(tmp_path, [summary, moves], [], note=None, judge="")
    (tmp_path / "tables" / "mine.csv").touch()
    write_tables(tmp_path, [summary], [], note=None, judge="")
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {"summary.csv", "summary.tex", "mine.csv"}
