"""Measures the evaluation: inference at concurrency 64 against one dialogue at a time, the prefix-cache hit rate by
turn, aggregation of many verdicts, and how fast the transcript browser opens.

Input: a checkpoint (default: an untrained student of the miniature, made for the run). Output: a JSON report.

    python benchmarks/evaluation.py [inference] [aggregation] [browser] [--checkpoint DIR] [--out FILE]
"""

import argparse
import asyncio
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import openai

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before this folder, where `evaluation` is this file

from benchmarks.figures import Figure, peak_mib, write_figures
from evaluation.benchmarks import BenchmarkDialogue
from evaluation.multi_turn.inference import ANSWERS, REJECTS, Player
from evaluation.pictures import ShownPictures
from miniature.language import ask
from miniature.world import draw, random_scene
from safer_steer.answer_format import PLAIN
from safer_steer.chat import user_message
from safer_steer.dialogue import Dialogue, Turn
from safer_steer.images import ImageStore
from safer_steer.llm import EndpointConfig, LLMClient
from safer_steer.picture_size import PictureSize
from safer_steer.rows import process_rows
from safer_steer.servers import ServiceConfig, VllmConfig, start_services
from safer_steer.store import JsonlStore

TURNS, ANSWER_TOKENS, CONTEXT = 10, 16, 512
INTENTS = ("look", "colour", "open", "seal")


def dialogues(folder: Path, count: int, name: str) -> list[BenchmarkDialogue]:
    """Dialogues of ten turns about a picture of the miniature world, each with a picture of its own."""
    store, tasks = ImageStore(folder), []
    for number in range(count):
        rng = random.Random(f"{name}{number}")
        picture = store.put(draw(random_scene(rng, True, True), rng))
        turns = [Turn(user=ask(rng.choice(INTENTS), rng, "held_out")) for _ in range(TURNS)]
        row = Dialogue(
            id=f"{name}{number}", source="benchmark", kind="benign", strategy=None, images=[picture], turns=turns
        )
        tasks.append(BenchmarkDialogue(name, row, folder))
    return tasks


def untrained_student(folder: Path) -> None:
    """Saves a student of the miniature with random weights: as slow as a trained one."""
    from miniature.student import build_model, build_processor

    processor = build_processor()
    build_model(processor.tokenizer).save_pretrained(folder)
    processor.save_pretrained(folder)


def play(url: str, tasks: list[BenchmarkDialogue], folder: Path, concurrency: int) -> float:
    """Dialogues a second of our own inference at one concurrency."""
    endpoint = EndpointConfig(
        model="student", base_url=url, temperature=1.0, max_tokens=ANSWER_TOKENS, concurrency=concurrency
    )

    async def go() -> float:
        client = LLMClient("evaluated_student", endpoint)
        pictures = ShownPictures(PictureSize(), folder / "pictures")
        player = Player(client, seed=0, answers=PLAIN, folder=folder, pictures=pictures)
        started = time.monotonic()
        try:
            with JsonlStore(folder / ANSWERS) as kept, JsonlStore(folder / REJECTS) as rejects:
                await process_rows(
                    tasks,
                    player.play,
                    kept=kept,
                    rejects=rejects,
                    label=f"at {concurrency}",
                    concurrency=concurrency,
                    max_transport_rate=0.0,
                )
        finally:
            await client.close()
        return time.monotonic() - started

    folder.mkdir(parents=True, exist_ok=True)
    seconds = asyncio.run(go())
    assert sum(1 for _ in (folder / ANSWERS).open()) == len(tasks)
    return len(tasks) / seconds


def cached_by_turn(url: str, tasks: list[BenchmarkDialogue]) -> dict[int, tuple[int, int]]:
    """Turn -> (prompt tokens, those of them found in the prefix cache), at full concurrency, as the server says."""
    tokens: dict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))

    async def one(client: openai.AsyncOpenAI, task: BenchmarkDialogue) -> None:
        messages: list[dict] = []
        for number, turn in enumerate(task.dialogue.turns, 1):
            images = [task.folder / image for image in task.dialogue.images_at(number - 1)]
            messages.append(user_message(turn.user, images))
            answer = await client.chat.completions.create(
                model="student", messages=messages, max_tokens=ANSWER_TOKENS, seed=number
            )
            details = answer.usage.prompt_tokens_details
            prompt, cached = tokens[number]
            tokens[number] = prompt + answer.usage.prompt_tokens, cached + (details.cached_tokens if details else 0)
            messages.append({"role": "assistant", "content": answer.choices[0].message.content})

    async def go() -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
            await asyncio.gather(*(one(client, task) for task in tasks))

    asyncio.run(go())
    return dict(tokens)


def measure_inference(checkpoint: str | None, repeats: int, folder: Path) -> dict:
    """Throughput at 64 and at 1 in pairs, alternating, and the prefix-cache hit rate."""
    if checkpoint is None:
        untrained_student(folder / "student")
        checkpoint = str(folder / "student")
    arguments = ["--block-size", "16", "--enable-prefix-caching", "--enable-prompt-tokens-details"]
    vllm = VllmConfig(checkpoint=checkpoint, max_model_len=CONTEXT, max_num_seqs=64, arguments=arguments)
    service = ServiceConfig(serves="student", vllm=vllm)
    runs = []
    with start_services({"student": service}, folder / "logs") as urls:
        url = urls["student"]
        play(url, dialogues(folder / "warm", 4, "warm"), folder / "warm" / "out", 4)
        for repeat in range(repeats):
            alone = play(url, dialogues(folder / f"a{repeat}", 8, f"a{repeat}-"), folder / f"a{repeat}" / "out", 1)
            many = play(url, dialogues(folder / f"b{repeat}", 64, f"b{repeat}-"), folder / f"b{repeat}" / "out", 64)
            runs.append({"one_at_a_time": alone, "at_64": many, "ratio": many / alone})
        tokens = cached_by_turn(url, dialogues(folder / "cache", 64, "cache-"))
    later = [pair for turn, pair in tokens.items() if turn > 1]
    return {
        "dialogues_per_second": runs,
        "ratio_median": statistics.median(run["ratio"] for run in runs),
        "prefix_cache": {
            "by_turn": {turn: round(cached / prompt, 3) for turn, (prompt, cached) in sorted(tokens.items())},
            "from_turn_2": sum(cached for _, cached in later) / sum(prompt for prompt, _ in later),
        },
    }


def write_verdicts(path: Path, count: int) -> None:
    """Verdicts of `count` dialogues of ten turns, in the order a concurrent judge leaves them."""
    rng = random.Random(0)
    judge = {"model": "judge", "prompt_hash": "0" * 16, "version": "1" * 16}
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, count, 64):
            rows = []
            for number in range(start, min(start + 64, count)):
                for turn in range(1, TURNS + 1):
                    scores = {"harmlessness": rng.choice((3, 3, 3, 2, -1)), "helpfulness": rng.randint(1, 3)}
                    scores |= {"harmlessness_rationale": "why " * 20, "helpfulness_rationale": "why " * 20}
                    row = {"id": f"{number:016x}:{turn}", "dialogue": f"{number:016x}", "benchmark": "dys"}
                    row |= {"kind": "red_team", "turn": turn, "scores": scores, "judge": judge, "length": TURNS}
                    rows.append(json.dumps(row | {"unscored": None, "meta": {"task": row["id"]}}))
            rng.shuffle(rows)
            file.write("\n".join(rows) + "\n")


def measure_aggregation(count: int, folder: Path) -> dict:
    """Seconds and peak memory of the whole aggregation, in a process of its own."""
    model = folder / "model"
    model.mkdir(parents=True)
    write_verdicts(model / "verdicts.jsonl", count)
    (model / ANSWERS).write_text("", encoding="utf-8")
    command = [sys.executable, __file__, "--aggregate", str(model)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout) | {"dialogues": count, "turns": TURNS}


def aggregate_here(model: Path) -> None:
    """Child process: aggregates one model and prints seconds and MiB, before and at the peak."""
    from evaluation.multi_turn.aggregate import PassConfig
    from evaluation.report.results import load_result

    before = peak_mib()
    started = time.monotonic()
    result = load_result(model, "m", "M", PassConfig())
    seconds = time.monotonic() - started
    peak = peak_mib()
    numbers = {"seconds": seconds, "imports_mib": before, "peak_mib": peak, "safe": result.numbers["overall"]["safe"]}
    print(json.dumps(numbers))


def measure_browser(count: int, folder: Path) -> dict | None:
    """Seconds from opening the transcript page of `count` dialogues to its first dialogue; None without Chromium."""
    from evaluation.multi_turn.aggregate import PassConfig, dialogue_table, turn_table
    from evaluation.multi_turn.verdicts import read_verdicts
    from evaluation.report.browser_data import read_model, write_browser_data
    from evaluation.report.pages import write_browser_page

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return None
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True)
    path = folder / "verdicts.jsonl"
    write_verdicts(path, count)
    turns = [Turn(user=f"question {turn} " * 8, assistant=f"answer {turn} " * 60) for turn in range(TURNS)]
    meta = {"benchmark": "dys", "end": "complete"}
    answers = {
        f"{number:016x}": Dialogue(
            id=f"{number:016x}", source="b", kind="red_team", strategy=None, images=[], turns=turns, meta=meta
        )
        for number in range(count)
    }
    table = dialogue_table(turn_table(read_verdicts(path)), PassConfig())
    models = [
        read_model(title, folder, (answers.values(), read_verdicts(path)), table, set(answers))
        for title in ("A", "B", "C")
    ]
    limits = {"total": count, "failure_below": 2, "picture_side": 320, "note": None}
    write_browser_data(folder / "report", models, **limits)
    write_browser_page(folder / "report")
    seconds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(5):
            page = browser.new_page()
            started = time.monotonic()
            page.goto((folder / "report" / "transcripts.html").as_uri())
            page.wait_for_selector(".turn")
            seconds.append(time.monotonic() - started)
            page.close()
        browser.close()
    size = sum(file.stat().st_size for file in (folder / "report").rglob("*") if file.is_file())
    numbers = {"dialogues": count, "models": 3, "turns": TURNS, "report_mib": size / 2**20}
    return numbers | {"seconds_median": statistics.median(seconds), "seconds_max": max(seconds)}


def at_two_sizes(measure: Callable[[int, Path], dict | None], count: int, folder: Path) -> dict | None:
    """The numbers of a tenth of the dialogues and of all of them: what grows faster than the dialogues shows."""
    found = {"tenth": measure(count // 10, folder / "tenth"), "whole": measure(count, folder / "whole")}
    return found if all(found.values()) else None


def figures(report: dict) -> list[Figure]:
    """The comparisons of the parts that ran."""
    found = []
    if inference := report.get("inference"):
        runs, share = inference["dialogues_per_second"], inference["prefix_cache"]["from_turn_2"]
        one, many = (statistics.median(run[name] for run in runs) for name in ("one_at_a_time", "at_64"))
        ratio = inference["ratio_median"]
        found.append(Figure("inference, 64 at once", "dialogues/s", many, "one at a time", one, 3.0, ratio=ratio))
        found.append(Figure("prompt tokens from turn 2 on", "share cached", share, "all of them", 1.0, 0.8))
    if sizes := report.get("aggregation"):
        rates = [size["dialogues"] / size["seconds"] for size in (sizes["whole"], sizes["tenth"])]
        against = f"{sizes['tenth']['dialogues']:,} dialogues"
        name = f"aggregation of {sizes['whole']['dialogues']:,} dialogues"
        found.append(Figure(name, "dialogues/s", rates[0], against, rates[1]))
        peaks = sizes["whole"]["peak_mib"], sizes["tenth"]["peak_mib"]
        found.append(Figure(f"{name}, peak memory", "MiB", peaks[0], against, peaks[1], None, "lower"))
    if sizes := report.get("browser"):
        seconds = sizes["whole"]["seconds_median"], sizes["tenth"]["seconds_median"]
        name = f"opening {sizes['whole']['dialogues']:,} dialogues of three models"
        against = f"{sizes['tenth']['dialogues']:,} dialogues"
        found.append(Figure(name, "s", seconds[0], against, seconds[1], None, "lower"))
    return found


def main() -> int:
    """Parses the command line, runs the chosen parts, prints and writes the report; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="inference, aggregation, browser; default: all")
    parser.add_argument("--checkpoint", help="model folder or hub id to serve; default: an untrained miniature student")
    parser.add_argument("--repeats", type=int, default=2, help="pairs of inference runs")
    parser.add_argument("--dialogues", type=int, default=100_000, help="dialogues to aggregate")
    parser.add_argument("--browser-dialogues", type=int, default=5000, help="dialogues in the transcript browser")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--aggregate", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.aggregate:
        aggregate_here(arguments.aggregate)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parts = {
            "inference": lambda: measure_inference(arguments.checkpoint, arguments.repeats, folder / "inference"),
            "aggregation": lambda: at_two_sizes(measure_aggregation, arguments.dialogues, folder / "aggregation"),
            "browser": lambda: at_two_sizes(measure_browser, arguments.browser_dialogues, folder / "browser"),
        }
        if unknown := set(arguments.parts) - parts.keys():
            parser.error(f"unknown part(s) {', '.join(sorted(unknown))}; allowed: {', '.join(parts)}")
        report = {}
        for name in arguments.parts or parts:
            (folder / name).mkdir()
            report[name] = parts[name]()
    print(json.dumps(report, indent=1))
    settings = {name: getattr(arguments, name) for name in ("repeats", "dialogues", "browser_dialogues")}
    return write_figures(arguments.out, "evaluation", figures(report), settings=settings, details=report)


if __name__ == "__main__":
    sys.exit(main())
