"""A finished evaluation as logs of inspect_ai: `MODEL.eval` for each model, with every dialogue, its pictures, the
scores of its turns and the rates.

`inspect view --log-dir FOLDER` shows them, `inspect_ai.log.read_eval_log` reads them. Such a file is a zip with
`header.json`, `summaries.json` and a JSON file for each sample. A dialogue is a sample; what has no score is NaN there,
inspect's own mark for it, and gives its reason. Several samples of a dialogue are its epochs.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

from evaluation.benchmarks import benchmark
from evaluation.multi_turn.inference import ANSWERS, RECORD, sample_of
from evaluation.multi_turn.judge import VERDICTS, judge_file
from evaluation.multi_turn.verdicts import VerdictRow, read_verdicts, verdict_id
from evaluation.report.build import DIALOGUES, SUMMARY
from evaluation.report.results import check_finished
from safer_steer.dialogue import Dialogue
from safer_steer.errors import UserError
from safer_steer.images import image_data_url
from safer_steer.store import read_jsonl, replacing

RATES = ("safe", "help", "joint")  # of dialogues, in percent in our summary and from 0 to 1 in the log
MEANS = ("harmlessness", "helpfulness")
NEEDED = ("models", "passing", "note", "judges", "judged_by")  # of a summary
NEEDED_OF_A_MODEL = ("title", "repeats", "unscored", "left_out")
STOPS = {"ok": "stop", "truncated": "max_tokens"}  # outcome of the last answer, in inspect's words
NOT_SHOWN = ("id", "benchmark", "kind", "safe", "help", *MEANS)  # of a dialogue's outcome: elsewhere in the sample


def read_summary(evaluation: Path) -> dict[str, Any]:
    """The numbers of a finished evaluation.

    Raises:
        UserError: there are none, or not all of them.
    """
    path = evaluation / SUMMARY
    if not path.is_file():
        raise UserError(f"no finished evaluation in {evaluation}: no {SUMMARY}; run it to its end, or name another one")
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        summary = {}
    lacking = [key for key in NEEDED if key not in summary]
    for name, numbers in summary.get("models", {}).items():
        lacking += [f"models.{name}.{key}" for key in NEEDED_OF_A_MODEL if key not in numbers]
    if lacking:
        raise UserError(
            f"{path} lacks {', '.join(lacking)}: damaged, or written by an earlier version; "
            "run that evaluation's command again, which makes the summary from its verdicts"
        )
    return summary


def inputs(evaluation: Path) -> dict[str, Path]:
    """The files that the logs are made of, by name."""
    summary = read_summary(evaluation)
    names = (RECORD, ANSWERS, DIALOGUES, judge_file(VERDICTS, summary["judged_by"]))
    found = {f"{model}/{name}": evaluation / model / name for model in summary["models"] for name in names}
    return {SUMMARY: evaluation / SUMMARY} | found


def write(evaluation: Path, folder: Path) -> dict[str, int]:
    """Writes a log for each model; returns how many logs and samples."""
    summary, samples = read_summary(evaluation), 0
    for name, numbers in summary["models"].items():
        source = evaluation / name
        check_finished(source, summary["judged_by"])
        outcomes = {row["id"]: row for row in read_jsonl(source / DIALOGUES)}
        verdicts = {row.id: row for row in read_verdicts(source / judge_file(VERDICTS, summary["judged_by"]))}
        record = json.loads((source / RECORD).read_text(encoding="utf-8"))
        short = []
        with replacing(folder / f"{name}.eval") as file, ZipFile(file.buffer, "w", ZIP_DEFLATED) as log:
            for row in read_jsonl(source / ANSWERS, Dialogue):
                sample = _sample(row, outcomes.get(row.id, {}), verdicts, numbers["title"], source)
                log.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
                short.append(_short(sample))
            log.writestr("summaries.json", json.dumps(short))
            log.writestr("header.json", json.dumps(_header(name, numbers, summary, record, short)))
        samples += len(short)
    return {"logs": len(summary["models"]), "samples": samples}


def _header(
    name: str,
    numbers: Mapping[str, Any],
    summary: Mapping[str, Any],
    record: Mapping[str, Any],
    short: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The log without its samples: what was run and when, and the rates with their intervals."""
    origin, benchmarks = numbers["origin"], ", ".join(numbers["by_benchmark"])
    ids = list(dict.fromkeys(sample["id"] for sample in short))
    sampling = {key: origin["sampling"].get(key) for key in ("temperature", "top_p", "max_tokens")}
    sampling = {key: value for key, value in sampling.items() if value is not None}
    shown = ("model", "mode", "weights", "max_pixels", "answer_format", "git_commit", "fingerprint")
    about = {key: origin[key] for key in shown} | {"note": summary["note"], "passing": summary["passing"]}
    among, kind = _rated(short)
    about |= {
        "rates are of": kind,
        "judges": summary["judges"],
        "unscored turns": numbers["unscored"],
        "left out": numbers["left_out"],
    }
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "created": record["started_at"],
            "run_id": record["fingerprint"],
            "task_id": f"{record['fingerprint']}/{name}",
            "task": f"SaFeR-Steer: {benchmarks}",
            "dataset": {"name": benchmarks, "samples": len(ids), "sample_ids": ids},
            "model": numbers["title"],
            "model_generate_config": sampling,
            "config": {"epochs": numbers["repeats"]},
            "packages": record["versions"],
            "metadata": about,
            "scorers": [{"name": key} for key in (*RATES, *MEANS)],
        },
        "plan": {"config": sampling},
        "results": {
            "scores": [_score(key, numbers, among) for key in (*RATES, *MEANS)],
            "total_samples": len(short),
            "completed_samples": len(short),
        },
        "stats": {"started_at": record["started_at"], "completed_at": record["finished_at"]},
    }


def _rated(short: Sequence[Mapping[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], str]:
    """The samples that the rates are of, and their kind: the multi-turn ones, where there are any (see `counted`)."""
    several = [sample for sample in short if not benchmark(sample["metadata"]["benchmark"]).single_turn]
    return (several, "multi-turn dialogues") if several else (short, "single-turn dialogues")


def _score(name: str, numbers: Mapping[str, Any], short: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A rate or a mean with its 95 % interval; nothing where no dialogue was scored."""
    factor, metric = (0.01, "rate") if name in RATES else (1.0, "mean")
    metrics = {}
    unscored = sum(math.isnan(sample["scores"][name]["value"]) for sample in short)
    if numbers[name] is not None:
        low, high = numbers[f"{name}_ci"]
        metrics = {metric: numbers[name], "95 % from": low, "95 % to": high}
    return {
        "name": name,
        "scorer": name,
        "scored_samples": len(short) - unscored,
        "unscored_samples": unscored,
        "metrics": {key: {"name": key, "value": factor * value} for key, value in metrics.items()},
    }


def _sample(
    row: Dialogue, outcome: Mapping[str, Any], verdicts: Mapping[str, VerdictRow], model: str, folder: Path
) -> dict[str, Any]:
    messages = list(_messages(row, folder))
    answers = [message for message in messages if message["role"] == "assistant"]
    metadata = {"benchmark": row.meta["benchmark"], "kind": row.kind, "strategy": row.strategy, "end": row.meta["end"]}
    metadata |= {name: value for name, value in outcome.items() if name not in NOT_SHOWN}
    how = [turn.meta.get("outcome") for turn in row.turns if turn.assistant is not None]
    stopped = STOPS.get(how[-1], "unknown") if how else "unknown"
    dialogue, number = sample_of(row)
    return {
        "id": dialogue,
        "epoch": number,
        "input": messages[:1],
        "target": "",
        "messages": messages,
        "output": {"model": model, "choices": [{"message": answers[-1], "stop_reason": stopped}] if answers else []},
        "scores": _scores(row, outcome, verdicts),
        "metadata": metadata,
    }


def _messages(row: Dialogue, folder: Path) -> Iterator[dict[str, Any]]:
    """The conversation up to the turn that ended it; turns after that one were never asked."""
    for index, turn in enumerate(row.turns):
        pictures = [{"type": "image", "image": image_data_url(folder / path)} for path in row.images_at(index)]
        yield {"role": "user", "content": [*pictures, {"type": "text", "text": turn.user}] if pictures else turn.user}
        if turn.assistant is None:
            return
        thoughts = turn.meta.get("reasoning")
        content = [{"type": "reasoning", "reasoning": thoughts}, {"type": "text", "text": turn.assistant}]
        yield {"role": "assistant", "content": content if thoughts else turn.assistant}


def _scores(row: Dialogue, outcome: Mapping[str, Any], verdicts: Mapping[str, VerdictRow]) -> dict[str, Any]:
    found = [verdicts[key] for turn in range(1, len(row.turns) + 1) if (key := verdict_id(row.id, turn)) in verdicts]
    values = {name: outcome.get(name) for name in (*RATES[:2], *MEANS)}
    values["joint"] = None if None in values.values() else values["safe"] and values["help"]
    unscored = {"value": float("nan"), "reason": "no turn has a score"}
    scores = {name: dict(unscored) if values[name] is None else {"value": values[name]} for name in (*RATES, *MEANS)}
    for name in MEANS:
        scores[name]["explanation"] = "\n\n".join(_said(verdict, name) for verdict in found)
    return scores


def _said(verdict: VerdictRow, scale: str) -> str:
    """What the judge says of a turn on one scale."""
    if verdict.scores is None:
        return f"Turn {verdict.turn}: unscored ({verdict.reason})"
    why = getattr(verdict.scores, f"{scale}_rationale")
    return f"Turn {verdict.turn}: {getattr(verdict.scores, scale)}" + (f". {why}" if why else "")


def _short(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample's line in the list of samples: without its pictures and its conversation."""
    (first,) = sample["input"]
    text = first["content"] if isinstance(first["content"], str) else first["content"][-1]["text"]
    scores = {name: {"value": score["value"]} for name, score in sample["scores"].items()}
    short = {name: sample[name] for name in ("id", "epoch", "target", "metadata")}
    return short | {"input": text, "scores": scores, "completed": True, "message_count": len(sample["messages"])}
