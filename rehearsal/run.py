"""The rehearsal: eight checks of a real run on the machine that will do it, in minutes, before the run that takes days.

    bash scripts/rehearse.sh CONFIG ... [key=value ...] [--dry-run]

CONFIG: any configs of the stages; `device=cpu`, `layers=N` and `rehearse.KEY=VALUE` (rehearsal/settings.py) are the
rehearsal's, other keys those of the stages. It ends with one table and a forecast, both also in FOLDER/table.md, and
with exit code 1 when something would break.
"""

if __name__ == "__main__":  # before the imports below, which take seconds
    from safer_steer import interrupts

    interrupts.watch()

import argparse
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rehearsal import checks, derive, plays, rows
from rehearsal.forecast import forecast
from rehearsal.servers import check_servers
from rehearsal.settings import Settings, split
from rehearsal.subjects import Subject, subjects
from rehearsal.table import show
from safer_steer.answer_format import PLAIN
from safer_steer.cli import exit_code
from safer_steer.errors import UserError
from safer_steer.folder_lock import hold
from safer_steer.machine import Finding
from safer_steer.model_shape import families, family_of, tensors
from safer_steer.picture_size import MAX_PIXELS, PictureSize

TABLE = "table.md"


class Rehearsal:
    """One rehearsal: what it found so far, and what its stages share."""

    def __init__(self, settings: Settings, stages: list[Subject]):
        self.settings, self.stages = settings, stages
        self.folder = Path(settings.folder).resolve()
        self.findings: list[Finding] = []
        self.lines: list[str] = []
        self.rates: dict[str, dict[str, float]] = {}
        self.gpu_memory = 0.0
        self.export: Path | None = None  # the last stage's result, which the next one starts from

    def say(self, text: str) -> None:
        """Progress, on stderr."""
        print(f"rehearsal: {text}", file=sys.stderr, flush=True)

    def note(self, stage: Subject, *findings: Finding) -> None:
        """Takes in what was found of a stage."""
        self.findings += [replace(finding, check=f"{stage.kind}: {finding.check}") for finding in findings]

    def cheap(self) -> None:
        """Checks 1, 2 and those of sizes, without an engine."""
        for stage in self.stages:
            self.note(stage, *checks.check_machine(stage), *checks.check_model(stage), *checks.check_addresses(stage))
            if not stage.replaced:
                self.note(stage, checks.check_write_speed(stage))
        self.findings += checks.check_sizes(self.stages)

    def ranks(self) -> None:
        """Attention on the path that training takes, and a sum over all ranks."""
        for stage in self.stages:
            if stage.kind in ("sft", "grpo"):
                self.say(f"attention and ranks of {stage.kind}")
                found, memory = checks.check_attention(stage)
                self.note(stage, *found, checks.check_ranks(stage))
                self.gpu_memory = max(self.gpu_memory, memory)

    def servers(self) -> None:
        """Check 3, from this node."""
        for stage in self.stages:
            if stage.roles:
                self.say(f"models that {stage.kind} calls: {', '.join(stage.roles)}")
                picture = None
                if stage.miniature:
                    row = rows.of_the_miniature(self.folder / "miniature")
                    picture = row.folder / row.dialogue.images[0]
                found, self.rates[stage.kind] = check_servers(stage, picture, self.folder / "logs")
                self.note(stage, *found)
                if stage.needs.nodes > 1:
                    advice = "run this command there too, with rehearse.engines=false"
                    nodes = f"{stage.needs.nodes} nodes"
                    self.note(stage, Finding("servers, other nodes", "this node only", nodes, "not checked", advice))

    def model(self) -> Path:
        """The checkpoint to rehearse with: the stages' own where it is there and whole, else random weights."""
        playable = [stage for stage in self.stages if stage.model]
        target = self.folder / "model"
        if not self.settings.layers:
            for stage in playable:
                if (Path(stage.model) / "config.json").is_file() and any(Path(stage.model).glob("*.safetensors")):
                    self._weights(f"the stages' own, {stage.model}")
                    return Path(stage.model).resolve()
        self.say("random weights")
        if self.settings.family is None and playable and all(stage.miniature for stage in playable):
            self._weights("random, the miniature's architecture")
            return _miniature_model(target)
        from rehearsal.weights import make

        source = next((s.model for s in playable if (Path(s.model) / "config.json").is_file()), None)
        names = [self.settings.family or "", *(name for stage in self.stages for name in stage.names)]
        family = families().get(self.settings.family or "") or family_of(*names)
        if source is None and family is None:
            raise UserError(
                f"no checkpoint is there, and no name says its architecture ({', '.join(filter(None, names))}); give "
                f"rehearse.family=NAME, one of {', '.join(families())}"
            )
        processor = self.settings.processor or _cached_processor(names)
        record = make(source or family.name, target, layers=self.settings.layers, processor=processor)
        size = f"{record['parameters'] / 1e9:.2f} B parameters, {record['layers']} + {record['vision_layers']} layers"
        self._weights(f"random, {size}, made in {record['seconds']:.0f} s; {record['processor']}")
        return target

    def _weights(self, said: str) -> None:
        self.findings.append(Finding("weights", said, "the real widths", "ok"))

    def engines(self) -> None:
        """Checks 4 to 7: rows, two steps of each stage, the dialogue with most pictures; then the forecast."""
        model = self.model()
        from rehearsal.weights import processor_from

        processor = processor_from(str(model))
        for stage in self.stages:
            real = rows.longest(stage.data, self.settings.rows)
            if real:
                self.note(stage, *checks.check_rows(stage, real, processor))
            self.note(stage, *checks.check_sampling(stage, model))
        seen = [row for stage in self.stages for row in rows.longest(stage.data, self.settings.rows)]
        self.findings += checks.check_pictures(
            self.stages, seen or [self._generated(self.stages[0], processor)], processor
        )
        order = {"sft": 0, "grpo": 1, "evaluation": 2}
        for stage in sorted((s for s in self.stages if s.kind in order), key=lambda s: order[s.kind]):
            self.play(stage, self.export or model, processor)

    def play(self, stage: Subject, model: Path, processor: Any) -> None:
        """Two steps of one stage and what they say."""
        settings, folder = self.settings, self.folder
        real = rows.most_pictures(stage.data) if stage.kind == "evaluation" else rows.longest(stage.data, 4)
        used = real if real and not stage.replaced else [self._generated(stage, processor)]
        data = (
            folder / stage.kind / "rows.jsonl" if stage.kind != "evaluation" else folder / "bench" / "rehearsal.jsonl"
        )
        stand_in = bool(stage.roles) and not {"tutor", "judge"} & self.rates.get(stage.kind, {}).keys()
        note = ", with a stand-in for the model that did not answer" if stand_in else ""
        self.say(f"{stage.kind}: {derive.STEPS if stage.kind != 'evaluation' else 1} step(s), {len(used)} row(s){note}")
        place = folder / f"run_{stage.kind}"
        if stage.kind == "sft":
            batch, _, _, processes = derive.sft_batch(stage)
            rows.write(used, data, derive.STEPS * batch)
            done = plays.play_sft(stage, derive.sft(stage, settings, model, data, place), place, processes)
        elif stage.kind == "grpo":
            rows.write(used, data, max(derive.STEPS * derive.grpo_batch(stage)[0], len(used)), not_nfc=True)
            widest = max((n for file in model.glob("*.safetensors") for _, n in tensors(file)), default=0)
            config = derive.grpo(stage, settings, model, data, place, widest, stand_in)
            done = plays.play_grpo(stage, config, place)
        else:
            rows.write(used[:1], data, 1)
            done = plays.play_evaluation(stage, derive.evaluation(stage, settings, model, data, place, stand_in), place)
        self.note(stage, *done.findings, plays.memory_finding(done, stage, self.gpu_memory))
        self.lines += forecast(stage, done, settings, self.rates.get(stage.kind, {}), used)
        if done.export and (done.export / "config.json").is_file():
            self.export = done.export

    def _generated(self, stage: Subject, processor: Any) -> rows.Row:
        place = self.folder / "generated" / stage.kind
        if stage.miniature:
            return rows.of_the_miniature(place)
        pixels = stage.max_pixels or MAX_PIXELS
        if stage.replaced:  # two pictures leave room for words
            size = PictureSize.of(processor.image_processor)
            room = derive.length(stage, self.settings) // 8 * size.unit**2
            pixels = min(pixels, max(room, size.min_pixels))
        tags = list(getattr(stage.config, "answer_format", PLAIN).tags)
        return rows.generated(place, derive.length(stage, self.settings), pixels, processor, tags)


def _miniature_model(folder: Path) -> Path:
    import torch

    from miniature.student import build_model, build_processor

    torch.manual_seed(0)
    processor = build_processor()
    for part in (build_model(processor.tokenizer), processor):
        part.save_pretrained(folder)
    return folder


def _cached_processor(names: list[str]) -> str | None:
    """A hub id of the names whose processor is here or can be fetched; None where none is."""
    from rehearsal.weights import processor_from
    from safer_steer.weights import is_hub_id

    for name in filter(None, names):
        if is_hub_id(name):
            try:
                processor_from(name)
            except (UserError, OSError):
                continue
            return name
    return None


def main(arguments: list[str], dry_run: bool) -> int:
    """Rehearses; returns 1 when something would break."""
    configs, settings, overrides = split(arguments)
    stages = subjects(configs, settings, overrides)
    rehearsal = Rehearsal(settings, stages)
    if dry_run:
        print(_plan(rehearsal))
        return 0
    started = time.monotonic()
    rehearsal.folder.mkdir(parents=True, exist_ok=True)
    with hold(rehearsal.folder):
        for path in rehearsal.folder.iterdir():  # of an earlier rehearsal
            if path.is_dir() and path.name != "model":
                shutil.rmtree(path)
        rehearsal.cheap()
        rehearsal.servers()
        if settings.engines:
            rehearsal.ranks()
            rehearsal.engines()
        text, code = show(rehearsal.findings, rehearsal.lines, time.monotonic() - started)
        (rehearsal.folder / TABLE).write_text(text, encoding="utf-8")
        if not settings.keep:
            for path in rehearsal.folder.iterdir():
                if path.is_dir() and path.name != "model":
                    shutil.rmtree(path) if not path.name.startswith("run_") or code == 0 else None
    return code


def _plan(rehearsal: Rehearsal) -> str:
    """What a rehearsal would do."""
    said = ["# plan"]
    for stage in rehearsal.stages:
        where = f"{stage.device}" + (", sizes shrunk" if stage.replaced else "")
        said.append(
            f"  {stage.kind} ({stage.path}) on {where}: rows of {derive.length(stage, rehearsal.settings):,} tokens"
        )
        findings = checks.check_machine(stage) + checks.check_model(stage) + checks.check_addresses(stage)
        said += [f"  {f.verdict}: {stage.kind}: {f}" for f in findings if f.verdict in ("breaks", "warning")]
    sizes = checks.check_sizes(rehearsal.stages)
    said += [f"  {finding.verdict}: {finding}" for finding in sizes if finding.verdict != "ok"]
    said.append(f"  writes {rehearsal.folder}, removed at its end but for {TABLE} and the random weights")
    return "\n".join(said)


def run_cli(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="+", metavar="CONFIG|key=value", help="configs and keys, in any order")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done; touch nothing")
    given = parser.parse_intermixed_args(argv)
    return exit_code(lambda: main(given.arguments, given.dry_run))


if __name__ == "__main__":
    sys.exit(run_cli())
