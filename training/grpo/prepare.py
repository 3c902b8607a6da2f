"""steer_rl.jsonl -> train.parquet in verl's layout: the pictures inside, the static turns next to the first prompt.

Command (the launcher runs it): python -m training.grpo.prepare RUN_FOLDER/config.yaml
Output: RUN_FOLDER/data/{train,validation}.parquet with {train,validation}_rejects.jsonl, and counts.json. A row whose
prompt is too long, or that lacks its picture, is rejected and counted; losing every row is an error.
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf
from PIL import Image

from safer_steer.answer_format import AnswerFormat
from safer_steer.dialogue import MAX_TURNS, Dialogue
from safer_steer.errors import ImageError, UserError
from safer_steer.images import load_image, png_bytes
from safer_steer.picture_files import picture_file
from safer_steer.picture_size import PictureSize, limit_problem
from safer_steer.plain_text import as_plain_text, names_of_tokenizer
from safer_steer.row_files import BadRow, read_rows
from safer_steer.rows import Reject
from safer_steer.store import write_atomic, write_jsonl
from safer_steer.vlm import FAMILIES, family_of
from safer_steer_verl.settings import DataConfig

COUNTS = "counts.json"  # written last: the parquet files are whole
VERL_TAGS = ("<image>", "<video>", "<audio>")  # verl's data set cuts text at these

_TEXTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    {
        "data_source": pa.string(),
        "agent_name": pa.string(),
        "ability": pa.string(),
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "images": pa.list_(pa.struct({"bytes": pa.binary()})),
        "later_images": pa.list_(pa.struct({"turn": pa.int32(), "bytes": pa.binary()})),
        "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
        "extra_info": pa.struct(
            {
                "index": pa.int64(),
                "dialogue": pa.string(),
                "source": pa.string(),
                "kind": pa.string(),
                "strategy": pa.string(),
                "images": _TEXTS,
                "image_turns": pa.list_(pa.list_(pa.int32())),
                "turns": _TEXTS,
            }
        ),
    }
)


class PromptBuilder:
    """Dialogue -> parquet row, or a `Reject` with its reason."""

    def __init__(
        self,
        processor: Any,
        data: DataConfig,
        max_prompt_length: int,
        template_kwargs: dict | None = None,
        system: str | None = None,
    ):
        self.processor, self.data, self.max_prompt_length = processor, data, max_prompt_length
        self.system = [{"role": "system", "content": system}] if system else []
        self.size = PictureSize.of(processor.image_processor, data.max_pixels)
        self.template_kwargs = template_kwargs or {}

    def row(self, dialogue: Dialogue, index: int, root: Path) -> dict[str, Any] | Reject:
        """One parquet row; `index` is the row's number in its file, `root` the folder of its picture paths."""
        if len(dialogue.turns) > MAX_TURNS:
            return Reject("too many turns", f"{len(dialogue.turns)}, at most {MAX_TURNS}")
        if self.data.turns == "last":
            dialogue = last_turn_only(dialogue)
        try:
            shown = [self._pictures(dialogue, turn, root) for turn in range(len(dialogue.turns))]
        except ImageError as error:
            return Reject("picture missing or unusable", str(error))
        if not any(shown) and self.data.pictures == "required":
            return Reject("no picture", "no turn shows any; pictures=optional of the data takes it")
        turns = [self._text(turn.user) for turn in dialogue.turns]
        length = self.prompt_length(turns[0], shown[0])
        if length > self.max_prompt_length:
            return Reject("prompt too long", f"{length} tokens, data.max_prompt_length is {self.max_prompt_length}")
        folder = Path(self.data.source).parent
        numbers = {path: number for number, path in enumerate(dialogue.images)}
        image_turns = [[numbers[path] for path in dialogue.images_at(turn)] for turn in range(len(turns))]
        return {
            "data_source": dialogue.source,
            "agent_name": "safety_tutor",
            "ability": dialogue.kind,
            "prompt": [*self.system, {"role": "user", "content": "<image>" * len(shown[0]) + turns[0]}],
            "images": [{"bytes": png_bytes(picture)} for picture in shown[0]],
            "later_images": [
                {"turn": turn, "bytes": png_bytes(picture)}
                for turn, items in enumerate(shown)
                if turn
                for picture in items
            ],
            "reward_model": {"style": "tutor", "ground_truth": ""},
            "extra_info": {
                "index": index,
                "dialogue": dialogue.id,
                "source": dialogue.source,
                "kind": dialogue.kind,
                "strategy": dialogue.strategy or "",
                "images": [os.path.relpath(picture_file(root, path), folder) for path in dialogue.images],
                "image_turns": image_turns,
                "turns": turns,
            },
        }

    def prompt_length(self, text: str, pictures: list[Image.Image]) -> int:
        """Tokens of the first prompt with its generation header, pictures expanded."""
        content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": text}]
        rendered = self.processor.apply_chat_template(
            [*self.system, {"role": "user", "content": content}],
            tokenize=False,
            add_generation_prompt=True,
            **self.template_kwargs,
        )
        words = len(self.processor.tokenizer(rendered, add_special_tokens=False)["input_ids"])
        return words + sum(self.size.tokens(*picture.size) for picture in pictures) - len(pictures)

    def _pictures(self, dialogue: Dialogue, turn: int, root: Path) -> list[Image.Image]:
        return [load_image(picture_file(root, path), size=self.size) for path in dialogue.images_at(turn)]

    def _text(self, text: str) -> str:
        """The text with the spelling of picture tags and special tokens broken: it is text, whatever it says."""
        return as_plain_text(text, {*VERL_TAGS, *names_of_tokenizer(self.processor.tokenizer)})


def last_turn_only(dialogue: Dialogue) -> Dialogue:
    """The dialogue's last user turn as a dialogue of one turn, with every picture (ablation: single-turn data)."""
    last = dialogue.turns[-1].model_copy(update={"images": []})
    return dialogue.model_copy(update={"turns": [last]})


def prepare(builder: PromptBuilder, sources: Sequence[str], folder: Path, name: str = "train") -> dict[str, Any]:
    """Writes `name`.parquet and its rejects; returns the counts.

    Raises:
        UserError: no row is usable.
    """
    rows, rejects = [], []
    for source in sources:
        for index, dialogue in enumerate(read_rows(source, Dialogue)):
            if isinstance(dialogue, BadRow):
                rejects.append(dialogue.as_dict())
                continue
            made = builder.row(dialogue, index, Path(source).parent)
            if isinstance(made, Reject):
                rejects.append({"id": dialogue.id, "reason": made.reason, "detail": made.detail})
            else:
                rows.append(made)
    reasons = Counter(reject["reason"] for reject in rejects)
    counts = {"rows": len(rows) + len(rejects), "kept": len(rows), "rejected": len(rejects), "reasons": dict(reasons)}
    folder.mkdir(parents=True, exist_ok=True)
    rejects_file = folder / f"{name}_rejects.jsonl"
    write_jsonl(rejects_file, rejects)
    if not rows:
        first = f"; first: {rejects[0]['id']}: {rejects[0]['reason']}: {rejects[0]['detail']}" if rejects else ""
        raise UserError(f"{', '.join(sources)}: none of {counts['rows']} rows is usable{first}; see {rejects_file}")
    write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / f"{name}.parquet")
    return counts


def prepare_apart(config: Path, env: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Runs this program on a resolved config, unless it has been: the run's own record guards what went in.

    A process of its own, so that its libraries do not stay in the launcher's memory.

    Args:
        config: RUN_FOLDER/config.yaml.
        env: the process's environment.

    Returns:
        The counts: rows, kept, rejected, reasons, and those of the held-out dialogues.

    Raises:
        UserError: no row is usable, or the model's processor cannot be loaded.
    """
    counts = config.parent / "data" / COUNTS
    if not counts.is_file():
        command = [sys.executable, "-m", "training.grpo.prepare", str(config)]
        answer = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True, check=False)
        last = (answer.stderr.strip().splitlines() or ["no output"])[-1]
        if answer.returncode == 2:
            raise UserError(last.removeprefix("error: "))
        if answer.returncode:
            raise UserError(f"data preparation failed: {last}")
    return json.loads(counts.read_text(encoding="utf-8"))


def write_table(table: pa.Table, path: Path) -> None:
    """Writes a parquet file whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    pq.write_table(table, temporary)
    temporary.replace(path)


def main(argv: list[str]) -> int:
    """Prepares the data of one resolved config."""
    from transformers import AutoProcessor

    try:
        config = OmegaConf.load(argv[1])
        data = DataConfig.model_validate(OmegaConf.to_container(config.safer_steer.data, resolve=True))
        model, limit = config.actor_rollout_ref.model.path, config.data.max_prompt_length
        folder = Path(config.data.train_files).parent
        template = OmegaConf.to_container(config.data.get("apply_chat_template_kwargs") or OmegaConf.create({}))
        processor = AutoProcessor.from_pretrained(model)
        family = family_of(processor.tokenizer, processor)
        if not family.grpo:
            able = " or ".join(known.name for known in FAMILIES if known.grpo)
            raise UserError(f"{model}: GRPO does not know {family.name}; train a model of {able}")
        answers = AnswerFormat.model_validate(OmegaConf.to_container(config.safer_steer.answer_format, resolve=True))
        builder = PromptBuilder(processor, data, limit, template, answers.system)
        if problem := limit_problem(processor.image_processor, data.max_pixels):
            raise UserError(f"{model}: {problem}; set it to that value in every stage, or train the model again")
        counts = prepare(builder, [data.source], folder)
        if data.validation:
            counts["validation"] = prepare(builder, data.validation, folder, "validation")
        else:  # verl wants a file; one training row is in it, and is never played
            write_table(pq.read_table(folder / "train.parquet").slice(0, 1), folder / "validation.parquet")
        write_atomic(folder / COUNTS, json.dumps(counts, indent=1) + "\n")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
