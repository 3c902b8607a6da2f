"""Model card and dataset card in the hub's format, of run records alone; what no record says is named as missing.

The records: `run.json` of each training run, the data construction's in the folder of the rows, an evaluation's
`summary.json` with the verdicts behind it. Both cards are a `README.md`, ready to be uploaded with the files.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData

from data_construction.assemble.stats import NAMES
from data_construction.step import RECORDS
from evaluation.benchmarks import benchmark
from evaluation.multi_turn.aggregate import METRICS, PassConfig
from evaluation.report import tables
from evaluation.report.formats import markdown
from evaluation.report.results import ModelResult, by_mode, load_result, pairs
from exports.config import ExportConfig
from exports.inspect_logs import read_summary
from safer_steer.errors import UserError
from safer_steer.markdown import plain, table
from safer_steer.runs import input_hash, is_finished, read_record
from safer_steer.store import write_atomic
from safer_steer.weights import is_hub_id, weights_fingerprint

MISSING = "not recorded"
STATS = "stats.json"
TITLES = {"sft": "Supervised fine-tuning", "grpo": "GRPO with the Safety Tutor"}
# Stage -> what its card says -> where its record has it.
_VERL = "config.verl"
SETTINGS: dict[str, dict[str, str]] = {
    "sft": {
        "started from": "config.model",
        "seed": "config.seed",
        "epochs": "config.training.epochs",
        "dialogues an update": "config.training.batch_size",
        "learning rate": "config.training.learning_rate",
        "weight decay": "config.training.weight_decay",
        "longest row, tokens": "config.max_length",
        "LoRA rank": "config.lora.rank",
        "vision tower frozen": "config.freeze.vision_tower",
        "largest picture, px": "config.images.max_pixels",
        "rows (hash)": "inputs.data",
    },
    "grpo": {
        "started from": f"{_VERL}.actor_rollout_ref.model.path",
        "seed": f"{_VERL}.data.seed",
        "epochs, at most": f"{_VERL}.trainer.total_epochs",
        "steps, at most": f"{_VERL}.trainer.total_training_steps",
        "prompts a step": f"{_VERL}.data.train_batch_size",
        "rollouts a prompt": f"{_VERL}.actor_rollout_ref.rollout.n",
        "learning rate": f"{_VERL}.actor_rollout_ref.actor.optim.lr",
        "weight of the KL term": f"{_VERL}.actor_rollout_ref.actor.kl_loss_coef",
        "tutor": "config.safer_steer.tutor.model",
        "tutor's prompt (hash)": "prompts.tutor",
        "tutor adapts the next question": "config.safer_steer.feedback_dynamics",
        "rule over the turns": "config.safer_steer.tcsr.rule",
        "weight of the worst turn": "config.safer_steer.tcsr.alpha",
        "largest picture, px": "config.safer_steer.data.max_pixels",
        "rows (hash)": "inputs.data",
    },
}


def inputs(config: ExportConfig) -> dict[str, Path]:
    """The records that the cards are made of, by name."""
    found = {f"record of {folder}": Path(folder, "run.json") for folder in config.training}
    if config.data:
        names = (*RECORDS.values(), STATS)
        found |= {f"record {name}": path for name in names if (path := Path(config.data).parent / name).is_file()}
    return found


def write(name: str, config: ExportConfig, folder: Path) -> str:
    """Writes `README.md`; returns how many facts are missing, in words."""
    card, missing = {"model_card": _model_card, "dataset_card": _dataset_card}[name](config)
    write_atomic(folder / "README.md", str(card))
    return f"({len(missing)} facts {MISSING})"


def _model_card(config: ExportConfig) -> tuple[ModelCard, list[str]]:
    records = [_finished(Path(folder, "run.json")) for folder in config.training]
    results, passing = _results(config.evaluation) if config.evaluation else ([], PassConfig())
    result = next((item for item in results if item.name == config.evaluated), None)
    if results and result is None:
        names = ", ".join(item.name for item in results)
        raise UserError(f"evaluated {config.evaluated}: {config.evaluation} has {names}; name one of them")
    settings = [
        (name, record["stage"], _settings(record)) for name, record in zip(_names(records), records, strict=True)
    ]
    first = records[0]
    start = _at(first["facts"], SETTINGS.get(first["stage"], {}).get("started from", ""))
    missing = [f"{name}: {key}" for name, _, rows in settings for key, value in rows.items() if value == MISSING]
    missing += [] if config.license else ["licence"]
    missing += [] if result else ["any evaluation"]
    weights = _weights(config, result) if result else None
    missing += [] if weights or not result else ["whether the numbers are of these weights"]
    missing += _unlinked(config, records)
    name = result.title if result else Path(config.root).name
    data = ModelCardData(
        base_model=start if is_hub_id(start) else None,
        library_name="transformers",
        license=config.license,
        pipeline_tag="image-text-to-text",
        tags=["safety", "multi-turn", "safer-steer"],
        model_name=name,
        eval_results=_eval_results(result) if result else None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("model_card.jinja")),
        name=plain(name),
        start=plain(_said(start)),
        stages=[
            (name.replace(stage, TITLES.get(stage, stage), 1), _table(["", name], list(rows.items())))
            for name, stage, rows in settings
        ],
        data=_data_tables(config),
        result=result,
        turns=_user_turns(result, results) if result else "",
        adaptive=any(item.origin.get("mode") == "adaptive" for item in results),
        weights=weights,
        numbers=_numbers(results, passing) if result else [],
        license=config.license,
        missing=missing,
    )
    return card, missing


def _names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The runs' stages, numbered where several share one."""
    stages = [record["stage"] for record in records]
    return [
        f"{stage} {stages[: number + 1].count(stage)}" if stages.count(stage) > 1 else stage
        for number, stage in enumerate(stages)
    ]


def _settings(record: Mapping[str, Any]) -> dict[str, str]:
    """What the card says of one training run."""
    found = {key: _said(_at(record["facts"], path)) for key, path in SETTINGS.get(record["stage"], {}).items()}
    counts = ", ".join(f"{key} {value}" for key, value in record["counts"].items())
    versions = ", ".join(f"{key} {value}" for key, value in record["versions"].items())
    about = {"counts": counts, "finished": record["finished_at"], "seconds": record["seconds"], "versions": versions}
    about["commit of the code"] = record["git_commit"] or MISSING
    return found | {key: _said(value) for key, value in about.items()}


def _unlinked(config: ExportConfig, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What no hash shows: that each run began with the checkpoint of the one before, and learned from these rows.

    Raises:
        UserError: a run did not.
    """
    missing, rows = [], {}
    if config.data:
        rows = {input_hash(path): path.name for path in sorted(Path(config.data).parent.glob("*.jsonl"))}
    for number, (stage, record) in enumerate(zip(_names(records), records, strict=True)):
        run, recorded = config.training[number], record["facts"]["inputs"]
        if rows and recorded.get("data", MISSING) == MISSING:
            missing.append(f"{stage}: whether it learned from these rows")
        elif rows and recorded["data"] not in rows:
            raise UserError(
                f"{Path(config.data).parent}: none of its files is what {run} learned from; set data= to a file of "
                "the folder that has it, or data=null"
            )
        before = Path(config.training[number - 1], "checkpoint")
        if number and not (before.is_dir() and "model" in recorded):
            missing.append(f"{stage}: whether it began with the checkpoint of the run before")
        elif number and recorded["model"] != weights_fingerprint(before):
            raise UserError(f"{run} began with other weights than {before}; set training= to the runs of one model")
    return missing


def _weights(config: ExportConfig, result: ModelResult) -> str | None:
    """The fingerprint of the last run's checkpoint, which the evaluation served; None where one of both is not known.

    Raises:
        UserError: the evaluation served other weights.
    """
    checkpoint, served = Path(config.training[-1], "checkpoint"), result.origin.get("weights")
    if not checkpoint.is_dir() or served is None:
        return None
    if (ours := weights_fingerprint(checkpoint)) != served:
        raise UserError(
            f"{config.evaluation}: its model {result.name} had other weights ({served}) than {checkpoint} ({ours}); "
            "set evaluated= or training= so that both are of one model"
        )
    return ours


def _user_turns(result: ModelResult, results: Sequence[ModelResult]) -> str:
    """Who wrote the user turns of the model's dialogues."""
    modes = {item.origin.get("mode", MISSING) for item in results if item.name.endswith(result.name)}
    said = {"static": "fixed in advance", "adaptive": "written by a tutor in reply to the model's answers"}
    return f"User turns: {', and again '.join(said.get(mode, mode) for mode in sorted(modes, reverse=True))}."


def _results(evaluation: str) -> tuple[list[ModelResult], PassConfig]:
    summary, folder = read_summary(Path(evaluation)), Path(evaluation)
    passing = PassConfig.model_validate(summary["passing"])
    models = summary["models"].items()
    found = [load_result(folder / key, key, item["title"], passing, summary["judged_by"]) for key, item in models]
    return found, passing


def _numbers(results: list[ModelResult], passing: PassConfig) -> list[str]:
    """The report's tables, for all models of the evaluation, so that the card's model stands next to its start."""
    models, attacked = by_mode(results)
    compared = pairs(models, passing, attacked)
    shown = [tables.headline(models, passing, attacked, compared), *tables.group_tables(results)[:2]]
    shown += [tables.pairs_table(compared)] if compared else []
    judges = {judge for result in results for judge in result.judges}
    return [*(markdown(item, 3) for item in shown), plain(tables.judges_line(judges))]


def _eval_results(result: ModelResult) -> list[EvalResult]:
    """Each benchmark's rates for the card's front matter; the metric's name has the interval."""
    return [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=name,
            dataset_name=benchmark(name).column,
            metric_type=metric,
            metric_name=f"{metric}, % of dialogues (95 %: {tables.between(numbers[f'{metric}_ci'])})",
            metric_value=round(numbers[metric], 1),
        )
        for name, numbers in result.numbers["by_benchmark"].items()
        for metric in METRICS
        if numbers[metric] is not None
    ]


def _dataset_card(config: ExportConfig) -> tuple[DatasetCard, list[str]]:
    folder = Path(str(config.data)).parent
    records = {step: _finished(path) for step, name in RECORDS.items() if (path := folder / name).is_file()}
    stats = _stats(folder)
    if not records or not stats:
        raise UserError(f"{folder}: no records of data construction ({STATS}); run it to its end, or set data=")
    stage1 = records.get("stage1", {})
    languages = _at(stage1, "facts.config.quality.languages")
    languages = None if languages == MISSING else languages or None
    steps = [
        [
            step,
            _said(_at(record["facts"], "config.seed")),
            _roles(record),
            record["finished_at"],
            record["git_commit"] or MISSING,
        ]
        for step, record in records.items()
    ]
    lacking = {"licence": config.license, "languages": languages, "terms of the sources": None}
    lacking |= {f"record of {step}": records.get(step) for step in ("stage1", "stage2", "assemble")}
    missing = [name for name, value in lacking.items() if not value]
    files = {path.stem: path.name for path in sorted(folder.glob("steer_*.jsonl"))}
    files |= {f"bench_{path.stem}": f"steer_bench/{path.name}" for path in sorted(folder.glob("steer_bench/*.jsonl"))}
    size = sum(split["size"] for split in stats["splits"].values())
    data = DatasetCardData(
        language=languages,
        license=config.license,
        annotations_creators="machine-generated",
        task_categories=["image-text-to-text"],
        size_categories=_size(size),
        pretty_name=Path(config.root).name,
        tags=["safety", "multi-turn", "safer-steer"],
        configs=[{"config_name": name, "data_files": file} for name, file in files.items()],
    )
    card = DatasetCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("dataset_card.jinja")),
        name=plain(data.pretty_name),
        data=_data_tables(config),
        sources=_sources(stage1),
        second="stage2" in records,
        split="assemble" in records,
        attacked=_at(stage1, "facts.config.roles.target") != MISSING,
        steps=_table(["step", "seed", "models", "finished", "commit of the code"], steps),
        keep=stats["keep_rule"],
        left_out=stats["left_out"],
        license=config.license,
        missing=missing,
    )
    return card, missing


def _data_tables(config: ExportConfig) -> str | None:
    """Sizes, turns and kinds of the splits; None without their record."""
    if not (stats := _stats(Path(config.data).parent) if config.data else {}):
        return None
    rows = []
    for name, split in stats["splits"].items():
        turns = f"{split['turns_min']} to {split['turns_max']}, mean {split['turns_mean']}" if split["size"] else "–"
        kinds = ", ".join(f"{count:,} {kind.replace('_', '-')}" for kind, count in split["kind"].items())
        rows.append([NAMES[name], f"{split['size']:,}", turns, kinds or "–"])
    return _table(["split", "dialogues", "user turns", "kinds"], rows)


def _sources(record: Mapping[str, Any]) -> str | None:
    if (found := _at(record, "facts.config.sources")) == MISSING:
        return None
    columns = ("path", "data_split", "split", "limit")
    rows = [[name, *(_said(_at(item, key)) for key in columns)] for name, item in found.items()]
    return _table(["source", "data set", "its split", "used for", "limit on seeds"], rows)


def _roles(record: Mapping[str, Any]) -> str:
    roles = _at(record, "facts.config.roles")
    return "none" if roles == MISSING else ", ".join(f"{role}: {item['model']}" for role, item in roles.items())


def _stats(folder: Path) -> dict[str, Any]:
    path = folder / STATS
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _finished(path: Path) -> dict[str, Any]:
    """A finished run's record.

    Raises:
        UserError: there is none.
    """
    if not is_finished(path):
        raise UserError(f"{path}: no record of a finished run; run the stage to its end, or leave its folder out")
    return read_record(path)


def _at(tree: Any, path: str) -> Any:
    """The value at a dotted path: None where it, or what holds it, is recorded as none; `MISSING` where it is not."""
    for key in path.split("."):
        if tree is None:
            return None
        if not isinstance(tree, Mapping) or key not in tree:
            return MISSING
        tree = tree[key]
    return tree


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table(head, [[plain(cell) for cell in row] for row in rows])


def _said(value: Any) -> str:
    if isinstance(value, bool | None):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return _place(value) if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def _place(text: str) -> str:
    """A hub id as it is; of a path on somebody's machine its last two names."""
    return text if "/" not in text or is_hub_id(text) else "/".join(Path(text).parts[-2:])


def _size(rows: int) -> str:
    bounds = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for bound, name in bounds if rows < bound), "1M<n<10M")
