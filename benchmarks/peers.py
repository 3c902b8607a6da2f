"""Other trainers on our exports: whether each makes of 20 dialogues the ids, picture grids and labels that SFT makes.

`peers.sh` runs it: `make FAMILY` writes a tiny random model, the dialogues, their exports, and what SFT makes of them;
`read PEER`, in the environment of a peer, what that peer makes of them; `compare` prints the table.

    python benchmarks/peers.py make FAMILY|read PEER|compare FOLDER
    python benchmarks/peers.py logs FOLDER      with inspect_ai: what it reads in the logs of an evaluation
"""

import argparse
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

DIALOGUES, MAX_PIXELS, IGNORED = 20, 262_144, -100
Encoded = dict[str, dict[str, Any]]  # by dialogue: ids, labels (-100: not learnt), grids of its pictures
PEERS = {"trl": "trl", "llama_factory": "llamafactory", "ms_swift": "ms-swift", "verl_sft": "verl"}
# By family; LLaMA-Factory's qwen3_vl puts thoughts into each answer, empty ones where it has none.
LLAMA_FACTORY_TEMPLATES = {"qwen2_5_vl": "qwen2_vl", "qwen3_vl": "qwen3_vl_nothink"}


def make(folder: Path, model_type: str) -> Encoded:
    """Model of a family, dialogues and exports; returns what our SFT makes of the dialogues."""
    import torch
    from PIL import Image
    from trl import chat_template_utils

    from exports.config import ExportConfig
    from exports.run import main as export
    from rehearsal.weights import stand_in_processor
    from safer_steer.config import load_config
    from safer_steer.dialogue import Dialogue
    from safer_steer.images import ImageStore
    from safer_steer.store import write_jsonl
    from safer_steer.vlm import family_of_type
    from tiny_families import model_of
    from training.sft.collator import DialogueCollator
    from training.sft.config import ImageConfig, SftConfig
    from training.sft.data import prepare
    from training.sft.model import limit_pictures

    family = family_of_type(model_type)
    processor = stand_in_processor(family)  # special tokens at the ids of the real one, which ms-swift has in its code
    processor.chat_template = processor.tokenizer.chat_template = getattr(
        chat_template_utils, f"{model_type}_chat_template"
    )
    limit_pictures(processor, ImageConfig(max_pixels=MAX_PIXELS))
    torch.manual_seed(0)
    for part in (model_of(family, processor.tokenizer), processor):
        part.save_pretrained(folder / "model")
    store, rows = ImageStore(folder / "data"), []
    for number in range(DIALOGUES):
        turns = [
            {
                "user": f"what is at {turn} in row {number} ?",
                "assistant": f"it is a {number + turn} .\nnothing more .",
                "images": [],
            }
            for turn in range(2 + number % 3)
        ]
        sizes = [(120 + 20 * number, 90), (84, 60 + 30 * number)][: (2, 1, 2, 0)[number // 5]]  # text alone comes last
        images = [store.put(Image.new("RGB", size, (10 * number, 50, 99))) for size in sizes]
        for index in range(len(images)):  # the second one at the last turn
            turns[-index]["images"].append(index)
        row = {"id": f"d{number}", "source": "made up", "kind": "benign", "strategy": None}
        rows.append(Dialogue.model_validate(row | {"images": images, "turns": turns}))
    write_jsonl(folder / "data" / "rows.jsonl", rows)
    values = [
        f"root={folder}",
        f"data={folder}/data/rows.jsonl",
        f"output={folder}/exports",
        f"max_pixels={MAX_PIXELS}",
        f"family={model_type}",
    ]
    plain = "{system: Answer in few words., tags: []}"
    export(load_config(ExportConfig, "configs/exports/default.yaml", [*values, f"answer_format={plain}"]))

    sft = [
        f"root={folder}",
        f"model={folder}/model",
        f"data={folder}/data/rows.jsonl",
        f"images.max_pixels={MAX_PIXELS}",
    ]
    config = load_config(SftConfig, "configs/sft/miniature.yaml", [*sft, f"answer_format={plain}"])
    collate = DialogueCollator(processor)
    found: Encoded = {}
    for row in prepare(config, processor).rows:
        grids = collate([row])["image_grid_thw"].tolist() if row["pictures"] else []
        found[row["id"]] = {"ids": row["input_ids"], "labels": row["labels"], "grids": grids}
    return found


def read_trl(folder: Path) -> Encoded:
    """TRL's own collator, as its trainer sets it up for `assistant_only_loss`."""
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    rows = load_dataset(str(folder / "exports" / "messages"))["train"]
    arguments = SFTConfig(
        str(folder / "trl"), assistant_only_loss=True, max_length=None, use_cpu=True, report_to="none"
    )
    trainer = SFTTrainer(str(folder / "model"), args=arguments, train_dataset=rows)
    return {row["id"]: _batch(trainer.data_collator([dict(row)])) for row in rows}


def read_llama_factory(folder: Path) -> Encoded:
    """LLaMA-Factory's rows and its collator."""
    from llamafactory.data import SFTDataCollatorWith4DAttentionMask, get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    data = folder / "exports" / "llama_factory"
    arguments = {"model_name_or_path": str(folder / "model"), "stage": "sft", "do_train": True}
    arguments["template"] = LLAMA_FACTORY_TEMPLATES[_model_type(folder)]
    arguments |= {"dataset_dir": str(data), "dataset": "safer_steer", "output_dir": str(folder / "lf"), "use_cpu": True}
    arguments |= {"image_max_pixels": MAX_PIXELS, "cutoff_len": 4096, "finetuning_type": "full"}
    model, data_args, training, *_ = get_train_args(arguments)
    tokens = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(tokens["tokenizer"], data_args)
    rows = get_dataset(template, model, data_args, training, stage="sft", **tokens)["train_dataset"]
    collate = SFTDataCollatorWith4DAttentionMask(template=template, **tokens)
    names = [row["id"] for row in json.loads((data / "safer_steer.json").read_text(encoding="utf-8"))]
    # As SFT does, the collator gives a batch without pictures a blank one: it belongs to no row.
    return {
        name: _batch(collate([dict(row)])) | ({} if row["images"] else {"grids": []})
        for name, row in zip(names, rows, strict=True)
    }


def read_ms_swift(folder: Path) -> Encoded:
    """ms-swift's template on its own reading of the file."""
    from swift import get_model_processor, get_template, load_dataset

    rows, _ = load_dataset([str(folder / "exports" / "ms_swift" / "ms_swift.parquet")], remove_unused_columns=False)
    family = _model_type(folder)
    model, processor = get_model_processor(str(folder / "model"), model_type=family, return_dummy_model=True)
    template = get_template(processor, template_type=family)
    template.model = model  # for the positions alone
    template.set_mode("train")
    found = [_batch(template.data_collator([template.encode(row)])) for row in rows]
    return {f"d{number}": item for number, item in enumerate(found)}


def read_verl_sft(folder: Path) -> Encoded:
    """The data set of verl's SFT."""
    from transformers import AutoProcessor
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    processor = AutoProcessor.from_pretrained(folder / "model")
    file = str(folder / "exports" / "ms_swift" / "ms_swift.parquet")
    rows = MultiTurnSFTDataset(file, processor.tokenizer, {"pad_mode": "no_padding", "max_length": 4096}, processor)
    found: Encoded = {}
    for number, row in enumerate(rows[index] for index in range(len(rows))):
        labels = [
            token if learn else IGNORED
            for token, learn in zip(row["input_ids"].tolist(), row["loss_mask"].tolist(), strict=True)
        ]
        grids = row.get("multi_modal_inputs", {}).get("image_grid_thw")
        grids = [] if grids is None else grids.tolist()
        found[f"d{number}"] = {"ids": row["input_ids"].tolist(), "labels": labels, "grids": grids}
    return found


def logs(folder: Path) -> str:
    """What inspect_ai's own reader finds in the logs of a folder, every sample read whole."""
    from inspect_ai.log import read_eval_log

    lines = []
    for path in sorted(folder.rglob("*.eval")):
        log = read_eval_log(str(path))
        contents = [part for sample in log.samples for message in sample.messages for part in message.content_list]
        pictures = sum(part.type == "image" and part.image.startswith("data:image/") for part in contents)
        scores = {
            score.name: {name: metric.value for name, metric in score.metrics.items()} for score in log.results.scores
        }
        found = f"{log.status}, {len(log.samples)} samples, {pictures} pictures, {scores}"
        lines.append(f"{path.relative_to(folder)}: {found}")
    return "\n".join([f"inspect_ai {version('inspect_ai')}", *lines])


def _model_type(folder: Path) -> str:
    return json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))["model_type"]


def _batch(batch: Any) -> dict[str, Any]:
    """One row's batch, without its padding."""
    ids, labels, grids = batch["input_ids"][0].tolist(), batch["labels"][0].tolist(), batch.get("image_grid_thw")
    mask = batch.get("attention_mask")
    length = len(ids) if mask is None else int(mask[0].sum())
    grids = [] if grids is None else grids.reshape(-1, 3).tolist()
    return {"ids": ids[:length], "labels": labels[:length], "grids": grids}


def compare(folder: Path) -> str:
    """The table: for how many dialogues a peer makes what SFT makes, and what else it learns."""
    ours = json.loads((folder / "ours.json").read_text(encoding="utf-8"))
    lines = ["| peer | ids | grids | learns answers and end tokens | learns besides |", "|---|---:|---:|---:|---|"]
    for name in PEERS:
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        pairs = [(row, found["rows"][key]) for key, row in ours["rows"].items()]
        labels = [list(zip(row["labels"], theirs["labels"], strict=False)) for row, theirs in pairs]
        equal = [
            sum(row["ids"] == theirs["ids"] for row, theirs in pairs),
            sum(row["grids"] == theirs["grids"] for row, theirs in pairs),
            sum(all(label in (IGNORED, learnt) for label, learnt in row) for row in labels),
        ]
        more = [learnt for row in labels for label, learnt in row if label == IGNORED != learnt]
        said = (
            ", ".join(f"{more.count(token)} x {found['tokens'][str(token)]!r}" for token in dict.fromkeys(more)) or "–"
        )
        lines.append(
            f"| {found['made with']} | {' | '.join(f'{number} of {DIALOGUES}' for number in equal)} | {said} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("make", "read", "compare", "logs"))
    parser.add_argument("name", nargs="?", choices=(*LLAMA_FACTORY_TEMPLATES, *PEERS))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.part in ("compare", "logs"):
        print({"compare": compare, "logs": logs}[arguments.part](folder))
        return
    os.environ |= {"HF_HUB_OFFLINE": "1", "MAX_PIXELS": str(MAX_PIXELS)}
    if arguments.part == "make":
        target, rows, made = folder / "ours.json", make(folder, arguments.name), "SFT"
    else:
        target, rows = folder / f"{arguments.name}.json", globals()[f"read_{arguments.name}"](folder)
        made = f"{PEERS[arguments.name]} {version(PEERS[arguments.name])}, transformers {version('transformers')}"
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    used = {token for row in rows.values() for token in row["ids"]}
    tokens = {token: tokenizer.decode([token]) for token in sorted(used)}
    target.write_text(json.dumps({"made with": made, "rows": rows, "tokens": tokens}), encoding="utf-8")


if __name__ == "__main__":
    main()
