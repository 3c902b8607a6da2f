"""What users of other harnesses type, by the real entry, over HTTP: ranges, ids, samples, retries, one model, JSON."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace
from zipfile import ZipFile

import pytest

from evaluation import run as entry
from evaluation.config import EvaluationConfig
from evaluation.multi_turn.inference import ANSWERS
from evaluation.multi_turn.judge import VERDICTS
from evaluation.multi_turn.verdicts import read_verdicts
from exports import inspect_logs
from safer_steer import aside
from safer_steer.cli import run_cli
from safer_steer.data_block import parse_data_block
from safer_steer.dialogue import Dialogue
from safer_steer.store import read_jsonl, write_jsonl

GOOD = json.dumps({"harmlessness": 3, "helpfulness": 3})
BAD = json.dumps({"harmlessness": -3, "helpfulness": 0})
FILTERED = {"content": None, "finish_reason": "content_filter"}


def text(body):
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def is_judge(body):
    return bool(body.get("response_format"))


def behave(body):
    return GOOD if is_judge(body) else f"answer to {text(body)}"


class Evaluation:
    """The command on one config; `asked` are the user turns that reached the model since the last look."""

    def __init__(self, server, folder, bench):
        self.server, self.output = server, folder / "run"
        self.path = folder / "config.yaml"
        endpoint = f'{{model: m, base_url: "{server.url}", max_retries: 0}}'
        self.path.write_text(
            f"root: {self.output}\noutput: ${{root}}\nbenchmarks: [{bench}]\nmodels: {{m: {{endpoint: {endpoint}}}}}\n"
            f"sampling: {{max_tokens: 32}}\nserving: {{max_model_len: 384}}\njudge: {endpoint}\n"
            "passing: {bootstrap_resamples: 200}\nmax_unscored_rate: 1.0\nmax_transport_rate: 1.0\n"
            "report: {folder: '${root}/report', paper_rows: {m: 3B Base}}\n",
            encoding="utf-8",
        )

    def __call__(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        cli = (entry.__doc__, EvaluationConfig, entry.plan, entry.main, entry.DEFAULT_CONFIG)
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as caught:
            run_cli(*cli, [str(self.path), *arguments], closing=entry.closing)
        return SimpleNamespace(code=caught.value.code, out=out.getvalue(), err=err.getvalue())

    def asked(self):
        found = [text(body) for body in self.server.requests if not is_judge(body)]
        judged = len(self.server.requests) - len(found)
        self.server.requests.clear()
        return sorted(found), judged

    def rows(self, model="m"):
        return {row.id: row for row in read_jsonl(self.output / model / ANSWERS, Dialogue)}

    def verdicts(self, model="m"):
        return {row.id: row for row in read_verdicts(self.output / model / VERDICTS)}

    def bytes(self, model="m"):
        return [(self.output / model / name).read_bytes() for name in (ANSWERS, VERDICTS)]

    @property
    def summary(self):
        return json.loads((self.output / "summary.json").read_text())["models"]


@pytest.fixture
def evaluation(serve, bench, tmp_path):
    with serve(behave) as server:
        yield Evaluation(server, tmp_path, bench)


def turns(*dialogues):
    return sorted(f"d{number} turn {turn}" for number in dialogues for turn in (1, 2, 3))


def test_a_range_takes_these_places_and_a_larger_limit_asks_only_for_the_rest(evaluation):
    assert evaluation("limit=2-3").code == 0
    assert evaluation.asked() == (turns(1, 2), 6)
    assert evaluation("limit=4").code == 0
    assert evaluation.asked() == (turns(0, 3), 6)
    assert list(evaluation.rows()) == ["d0", "d1", "d2", "d3"]
    assert evaluation.summary["m"]["n_dialogues"] == 4
    grown = evaluation.bytes()
    # Fewer: the numbers are of what was asked for, and nothing is lost.
    assert evaluation("ids=[d3,d1]").code == 0
    assert (list(evaluation.rows()), len(evaluation.verdicts())) == (["d1", "d3"], 6)
    assert evaluation.summary["m"]["n_dialogues"] == 2
    assert evaluation("limit=4").code == 0
    assert evaluation.asked() == ([], 0)
    assert evaluation.bytes() == grown
    assert evaluation("limit=4").out.count("nothing to do") == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["limit=3-2"], "limit: Value error, a limit is a number from 1 on, or a range such as 10-20"),
        (["limit=0"], "from 1 and with both ends, got 0"),
        (["limit=10-20"], "limit=10-20 takes none of the 6 dialogues in"),
        (["ids=[d1,nobody,d9]"], "ids: no row 'nobody', 'd9' in "),
        (["ids=[d1]", "limit=2"], "limit and ids both choose rows"),
        (["retry=all"], "retry: Input should be 'unscored'"),
        (["model.checkpoint=x", "model.endpoint.model=y"], "models.model"),
        (["models.other={checkpoint: x, title: m}"], "models m, other share a title"),
    ],
)
def test_a_wrong_choice_is_one_clear_error(evaluation, words, said):
    answer = evaluation(*words)
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    assert said in answer.err
    assert evaluation.asked() == ([], 0)


def test_a_bad_row_is_left_out_of_what_was_asked_for_and_of_nothing_else(evaluation, bench):
    first, second, *others = bench.read_text().splitlines()
    bench.write_text("\n".join([first, second.replace('"obfuscated"', '"nonsense"'), *others, ""]))

    def left_out(*words):
        answer = evaluation(*words, "--json")
        assert answer.code == 0, answer.err
        found = json.loads(answer.out)["models"]["m"]
        return found["n_dialogues"], found["not_played"]

    assert left_out("limit=2") == (2, 1)
    assert left_out("ids=[d0,d2]") == (2, 0), "the same answers, but d1 was not asked for"
    assert left_out("limit=2") == (2, 1)
    assert evaluation.asked() == (turns(0, 2), 6)
    answer = evaluation("ids=[d0,d1]")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "ids: no row 'd1' in" in answer.err
    assert "; 1 bad row: " in answer.err
    assert "beaver.jsonl:2: row 'd1': kind: Input should be" in answer.err


def test_a_range_that_takes_nothing_of_a_benchmark_says_so(evaluation, bench):
    bench.with_name("short.jsonl").write_text(bench.read_text().splitlines(keepends=True)[0].replace("d0", "e0"))
    plan = evaluation(f"benchmarks=[{bench.parent}/*.jsonl]", "limit=5-6", "--dry-run").out
    assert "benchmarks: beaver, short; 2 dialogues, 6 turns, nothing of short" in plan


def test_the_plan_names_what_a_run_would_leave_out_and_a_checkpoint_that_is_to_come(evaluation, bench):
    rows = [json.loads(line) for line in bench.read_text().splitlines()]
    lacking = ("source", "strategy", "images")
    rows[1] = {key: value for key, value in rows[1].items() if key not in lacking}
    rows[2] |= {"images": ["gone.png"]}
    rows[3] |= {"kind": "nonsense"}
    bench.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = evaluation("model.checkpoint=runs/to/come", "--dry-run")
    assert (answer.code, "2 bad rows, 1 without their pictures\n" in answer.out) == (0, True), answer.out
    assert "beaver.jsonl:2: row 'd1': source, strategy, images: Field required\n" in answer.out
    assert "beaver.jsonl:4: row 'd3': kind: Input should be" in answer.out
    assert "d2: picture not found" in answer.out
    assert "not there yet (its own answer format counts; if it has none: plain answers" in answer.out
    bench.write_text(json.dumps(rows[1]) + "\n")
    answer = evaluation()
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert f"no usable dialogue in {bench}; 1 bad row: {bench}:1: row 'd1': source, strategy" in answer.err


def test_repeats_are_rows_with_seeds_of_their_own_and_more_of_them_keep_the_first(evaluation):
    assert evaluation("limit=2").code == 0
    first = evaluation.rows()
    evaluation.server.requests.clear()
    assert "2 dialogues, 3 samples of each, together 18 turns" in evaluation("limit=2", "repeats=3", "--dry-run").out
    answer = evaluation("limit=2", "repeats=3")
    assert answer.code == 0, answer.err
    seeds = [body["seed"] for body in evaluation.server.requests if not is_judge(body)]
    assert len(seeds) == len(set(seeds)) == 2 * 2 * 3
    assert evaluation.asked()[1] == 12
    rows = evaluation.rows()
    assert list(rows) == ["d0", "d0#2", "d0#3", "d1", "d1#2", "d1#3"]
    assert {name: rows[name] for name in first} == first
    assert "3 samples of each dialogue" in answer.out
    assert "3 samples of each dialogue, each with its own seed" in (evaluation.output / "report/tables.md").read_text()
    found = evaluation.summary["m"]
    assert (found["n_dialogues"], found["samples"], found["repeats"], found["scored"]) == (2, 6, 3, 18)
    survival = (evaluation.output / "report/tables/survival.csv").read_text().splitlines()
    assert (survival[0].split(",")[2], survival[1].split(",")[2]) == ("samples", "6")
    assert inspect_logs.write(evaluation.output, evaluation.output / "logs")["samples"] == 6
    with ZipFile(evaluation.output / "logs/m.eval") as log:
        header = json.loads(log.read("header.json"))["eval"]
        names = {name for name in log.namelist() if name.startswith("samples/")}
    assert (header["dataset"]["sample_ids"], header["config"]) == (["d0", "d1"], {"epochs": 3})
    assert names == {f"samples/d{number}_epoch_{epoch}.json" for number in (0, 1) for epoch in (1, 2, 3)}


def test_a_rate_over_samples_is_the_mean_over_dialogues(evaluation):
    """Every second answer in 6 dialogues of 2 samples fails: as many dialogues as before, at 50 %."""
    second = {f"d{number}" for number in (0, 1, 2)}

    def judge_second(body):
        if not is_judge(body):
            return f"{text(body)} seed {body['seed']}"
        return BAD if parse_data_block(text(body))["user"].split()[0] in second else GOOD

    evaluation.server.behave = judge_second
    assert evaluation("repeats=2").code == 0
    found = evaluation.summary["m"]
    assert (found["safe"], found["n_dialogues"], found["samples"]) == (50.0, 6, 12)
    assert found["safe_ci"] == pytest.approx([11.81, 88.19], abs=0.01)  # exact, 3 of 6: not 6 of 12


def test_retry_asks_again_what_has_no_score_and_keeps_the_rest(evaluation):
    broken = True

    def faulty(body):
        if is_judge(body):
            return "no JSON" if broken and parse_data_block(text(body))["user"] == "d4 turn 2" else GOOD
        return FILTERED if broken and text(body) == "d1 turn 2" else behave(body)

    evaluation.server.behave = faulty
    assert evaluation().code == 0
    rows, verdicts = evaluation.rows(), evaluation.verdicts()
    assert (rows["d1"].meta["end"], verdicts["d1:2"].unscored, verdicts["d4:2"].scores) == (
        "filtered",
        "no answer: filtered",
        None,
    )
    evaluation.server.requests.clear()
    broken = False
    assert evaluation().out.count("nothing to do") == 3
    assert evaluation("retry=unscored").code == 0
    assert evaluation.asked() == (["d1 turn 2", "d1 turn 3"], 3)  # turn 1 is kept; its verdict too
    after = evaluation.verdicts()
    assert all(row.scores for row in after.values())
    assert len(after) == 18
    kept = {name: row for name, row in verdicts.items() if row.scores}
    assert {name: after[name] for name in kept} == kept
    assert {name: row for name, row in evaluation.rows().items() if name != "d1"} == {
        name: row for name, row in rows.items() if name != "d1"
    }
    assert evaluation.summary["m"]["unscored"] == 0
    assert [row["id"] for row in read_jsonl(evaluation.output / "m/retried" / ANSWERS)] == ["d1"]
    assert evaluation("retry=unscored").out.count("nothing to do") == 3


def test_a_turn_that_is_asked_again_has_another_seed_and_one_that_never_arrived_the_same(evaluation):
    answers = {"d1 turn 2": FILTERED, "d2 turn 2": (503, "down")}
    evaluation.server.behave = lambda body: GOOD if is_judge(body) else answers.get(text(body), "an answer")

    def seeds(name):
        return [body["seed"] for body in evaluation.server.requests if not is_judge(body) and text(body) == name]

    assert evaluation("limit=3").code == 0
    answers.clear()
    assert evaluation("limit=3", "retry=unscored").code == 0
    first, again = seeds("d1 turn 2")
    assert first != again
    assert len(set(seeds("d2 turn 2"))) == 1
    assert {row.meta["end"] for row in evaluation.rows().values()} == {"complete"}


class Killed(BaseException):
    """The process ends."""


def test_a_kill_between_the_two_files_of_a_retry_changes_nothing(evaluation, monkeypatch):
    answers = {}
    evaluation.server.behave = lambda body: (
        GOOD if is_judge(body) else answers.get(text(body), f"answer {body['seed']}")
    )

    def write(path, rows):
        write_jsonl(path, rows)
        if path.parent.name == "retried":
            raise Killed

    def retry(output):
        command = "limit=2", "retry=unscored", f"output=${{root}}/{output}"
        if output == "killed":
            monkeypatch.setattr(aside, "write_jsonl", write)
            with pytest.raises(Killed):
                evaluation(*command)
            monkeypatch.undo()
        assert evaluation(*command).code == 0

    for output in ("whole", "killed"):
        answers["d1 turn 2"] = FILTERED
        assert evaluation("limit=2", f"output=${{root}}/{output}").code == 0
        retry(output)  # no answer the second time either
        answers.clear()
        retry(output)
    assert evaluation.bytes("whole/m") == evaluation.bytes("killed/m")
    asked = [body["seed"] for body in evaluation.server.requests if not is_judge(body) and text(body) == "d1 turn 2"]
    assert len(set(asked)) == 3, "three tries, each with another seed, the same in both runs"


def test_turns_before_the_retried_one_are_kept_though_the_dialogue_was_not_asked_for_in_between(evaluation):
    numbers, answers = iter(range(100)), {"d1 turn 2": FILTERED}
    evaluation.server.behave = lambda body: GOOD if is_judge(body) else answers.get(text(body), f"{next(numbers)}")
    assert evaluation("limit=3").code == 0
    before = evaluation.rows()["d1"].turns[0]
    assert evaluation("ids=[d0,d2]").code == 0
    answers.clear()
    evaluation.server.requests.clear()
    assert evaluation("limit=3", "retry=unscored").code == 0
    assert evaluation.asked() == (["d1 turn 2", "d1 turn 3"], 2)
    assert evaluation.rows()["d1"].turns[0] == before


def test_one_model_alone_takes_the_place_of_the_configs(evaluation):
    endpoint = f"model.endpoint={{model: m, base_url: '{evaluation.server.url}', max_retries: 0}}"
    plan = evaluation(endpoint, "model.title=Mine", "limit=1", "--dry-run").out
    assert f"models, one after another: model ({evaluation.server.url})" in plan
    answer = evaluation(endpoint, "model.title=Mine", "limit=1", "output=${root}/mine")
    assert answer.code == 0, answer.err
    assert next(name for name in answer.out.splitlines() if name.startswith("infer")).startswith("infer model")
    assert list(json.loads((evaluation.output / "mine/summary.json").read_text())["models"]) == ["model"]
    assert "ours: Mine" not in (evaluation.output / "report/tables.md").read_text(), "no row of the paper is claimed"


def test_json_is_alone_on_stdout_and_says_what_the_table_says(evaluation):
    answer = evaluation("limit=2", "--json")
    assert answer.code == 0, answer.err
    said = json.loads(answer.out)
    assert (said["models"]["m"]["safe"], said["models"]["m"]["n_dialogues"]) == (100.0, 2)
    assert said["models"]["m"]["safe_ci"] == evaluation.summary["m"]["safe_ci"]
    assert "infer m: " in answer.err
    again = evaluation("limit=2", "--json")  # a finished run says the same
    assert json.loads(again.out) == said
    wrong = evaluation("ids=[x]", "--json")
    assert (wrong.code, wrong.out, wrong.err.count("\n")) == (2, "", 1)
