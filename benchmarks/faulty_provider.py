"""An evaluation against a server that fails in every way of `provider_faults.py` at a tenth of all calls.

Input: a number of dialogues of four turns. Output: what is wrong (exit code 1), or nothing; the losses by reason. The
run is the real command, inference and judge, once undisturbed and once killed with `kill -9` at random moments and
started again. Checked: each answer and each score is what the server gave for that turn; each loss has the reason that
it must have; both runs end with the same files, byte for byte.
    python -m benchmarks.faulty_provider [--dialogues 1500] [--kills 6] [--random-seed 0]
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
import yaml

from benchmarks.figures import Figure, write_figures
from benchmarks.provider_faults import CASES, Case, create_app
from evaluation.multi_turn.verdicts import read_verdicts
from safer_steer.dialogue import Dialogue, Turn, stable_hash
from safer_steer.servers import free_port
from safer_steer.store import read_jsonl, write_jsonl

TURNS, SHARE, STICKY = 4, 0.1, 0.5  # share of calls that fail; of those worth another try, how many fail every time
COMPARED = ("answers.jsonl", "verdicts.jsonl")
SPOILT: dict[str, Callable[[str], str]] = {  # verdicts that are none
    "another minus": lambda text: text.replace(": -", ": \u2212").replace('ss": ', 'ss": \u2212'),
    "a string": lambda text: re.sub(r'ss": (-?\d)', r'ss": "\1"', text),
    "of ten": lambda text: re.sub(r'ss": (-?\d)', r'ss": \1/10', text),
    "a key twice": lambda text: text.replace("{", '{"harmlessness": 3, '),
    "out of range": lambda text: re.sub(r'ss": (-?\d)', r'ss": 9', text),
    "two objects": lambda text: text + ' or {"harmlessness": 3, "helpfulness": 3}',
    "torn": lambda text: text[:-1],
    "quoted": lambda text: json.dumps(text),
    "prose": lambda text: "It is safe, 3 of 3.",
}


class Provider:
    """Decides by the content of a request alone, and by how often it came, what the server does with it."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()

    def choose(self, body: dict[str, Any]) -> tuple[Case | None, str]:
        """What becomes of a request."""
        role, messages = body["model"], body["messages"]
        words = json.dumps(messages[0] if role == "judge" else messages[-1])
        asked = re.findall(r"(d\d+) turn (\d+);", words)
        if not asked:  # the client's plain question, after many failures in a row
            return None, "Hello"
        dialogue, turn = asked[-1]
        step = (role, dialogue, int(turn), len(messages) if role == "judge" else 0)
        self.calls[role] += 1
        self._seen[str(step)] += 1
        name, text = draw(*step), text_of(*step[:3])
        if name is None or (passes(*step) and self._seen[str(step)] > 1):
            return None, text
        self.failed[name] += 1
        return (CASES[name], text) if name in CASES else (None, SPOILT[name](text))


def draw(role: str, dialogue: str, turn: int, messages: int) -> str | None:
    """The fault that a request meets, None for none."""
    rng = random.Random(stable_hash(role, dialogue, turn, messages))
    names = [*CASES, *(SPOILT if role == "judge" else ())]
    return rng.choice(names) if rng.random() < SHARE else None


def passes(role: str, dialogue: str, turn: int, messages: int) -> bool:
    """Whether a fault that is worth another try is gone then."""
    name = draw(role, dialogue, turn, messages)
    lasting = random.Random(stable_hash("sticky", role, dialogue, turn)).random() < STICKY
    return name in CASES and CASES[name].kind == "failed" and not lasting


def text_of(role: str, dialogue: str, turn: int) -> str:
    """What the server says where it does not fail."""
    if role != "judge":
        return f"answer to {dialogue} turn {turn}"
    rng = random.Random(stable_hash("verdict", dialogue, turn))
    reasons = {"harmlessness_rationale": "r", "helpfulness_rationale": "s"}
    return json.dumps(reasons | {"harmlessness": rng.randint(-3, 3), "helpfulness": rng.randint(0, 3)})


def expected_answer(dialogue: str, turn: int) -> tuple[str | None, str]:
    """Text and outcome of a turn of the model under test."""
    step = ("m", dialogue, turn, 0)
    name = draw(*step)
    kind = "answer" if name is None or passes(*step) else CASES[name].kind
    if kind in ("answer", "cut"):
        return text_of(*step[:3]), "ok" if kind == "answer" else "truncated"
    sent = json.loads(CASES[name].body(text_of(*step[:3]))) if kind in ("empty", "refused") else {}
    if kind == "empty":
        return sent["choices"][0]["message"]["content"], "ok"
    if kind == "refused":
        said = sent["choices"][0]["message"]["content"]
        return (said if isinstance(said, str) else "I will not."), "refused"
    ends = {"cut empty": "truncated", "filtered": "filtered", "refused empty": "refused", "failed": "transport"}
    ends |= {"no answer": "unparsed", "thought": "unparsed"}
    return None, ends.get(kind, "bad_request")


def expected_verdict(dialogue: str, turn: int) -> str | None:
    """Why a turn is unscored, None when it is scored."""
    reason = None
    for messages in (1, 3):
        step = ("judge", dialogue, turn, messages)
        name = draw(*step)
        kind = "answer" if name is None or passes(*step) else CASES[name].kind if name in CASES else "spoilt"
        if kind in ("answer", "cut"):
            return None
        final = {"filtered": "filtered", "refused": "refused", "refused empty": "refused"}
        final |= {"failed": "transport", "bad request": "bad_request"}
        if kind in final:
            return final[kind]
        reason = "truncated" if kind == "cut empty" else "unparsed"
    return reason


def wrong(folder: Path, dialogues: int) -> tuple[list[str], Counter[str]]:
    """What is not as it must be in a finished run, and its losses by reason."""
    found, losses = [], Counter()
    rows = {row.id: row for row in read_jsonl(folder / "answers.jsonl", Dialogue)}
    verdicts = {row.id: row for row in read_verdicts(folder / "verdicts.jsonl")}
    for number in range(dialogues):
        name, end = f"d{number}", "complete"
        for turn in range(1, TURNS + 1):
            text, outcome = expected_answer(name, turn)
            got = rows[name].turns[turn - 1].assistant if name in rows else "nothing"
            verdict = verdicts.pop(f"{name}:{turn}", None)
            if got != text or verdict is None:
                found.append(f"{name}:{turn}: stored {got!r}, the server gave {text!r}")
                break
            if text is None:
                end = outcome
                losses[f"answer {end}"] += 1
                if verdict.scores or verdict.unscored != f"no answer: {end}":
                    found.append(f"{name}:{turn}: no answer, but {verdict.scores or verdict.unscored}")
                break
            reason = expected_verdict(name, turn)
            if reason:
                losses[f"judge {reason}"] += 1
            true = None if reason else json.loads(text_of("judge", name, turn))
            if (verdict.scores and verdict.scores.model_dump()) != true or (
                reason and not str(verdict.unscored).startswith(f"{reason}:")
            ):
                found.append(f"{name}:{turn}: {verdict.scores or verdict.unscored}, the server gave {true or reason}")
        if name in rows and rows[name].meta["end"] != end:
            found.append(f"{name}: ended {rows[name].meta['end']}, must be {end}")
    return found + [f"{row}: must not be there" for row in verdicts], losses


def told(folder: Path) -> Counter[str]:
    """The losses that the run itself counted, in the form of `wrong`."""
    counts = json.loads((folder / "judge.json").read_text(encoding="utf-8"))["counts"]
    infer = json.loads((folder / "infer.json").read_text(encoding="utf-8"))["counts"]
    ends = {f"answer {name}": number for name, number in infer.items() if name in ENDS}
    judge = {name[1:-1]: number for name, number in counts.items() if name.startswith("(judge ")}
    return Counter(ends | judge)


ENDS = ("truncated", "filtered", "unparsed", "transport", "bad_request", "refused", "context_full")


def prepare(root: Path, url: str, dialogues: int) -> Path:
    """Benchmark and config of a run; gives the config."""
    turns = {
        f"d{number}": [Turn(user=f"d{number} turn {turn};") for turn in range(1, TURNS + 1)]
        for number in range(dialogues)
    }
    rows = [
        Dialogue(id=name, source="t", kind="benign", strategy=None, images=[], turns=own) for name, own in turns.items()
    ]
    write_jsonl(root / "beaver.jsonl", rows)
    role = {"base_url": url, "max_retries": 1, "rate_limit_wait_s": 0.5, "timeout_s": 60, "concurrency": 64}
    config = yaml.safe_load(Path("configs/evaluation/miniature.yaml").read_text(encoding="utf-8"))
    config |= {
        "root": str(root),
        "benchmarks": [str(root / "beaver.jsonl")],
        "models": {"m": {"endpoint": role | {"model": "m", "max_tokens": 64}}},
        "judge": role | {"model": "judge", "max_tokens": 64},
        "services": {},
        "max_unscored_rate": 1.0,
        "max_transport_rate": 0.5,
    }
    config["report"] |= {"folder": str(root / "report"), "paper_rows": {}, "training": {}, "splits": {}}
    config["passing"] |= {"bootstrap_resamples": 100}
    path = root / "evaluation.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def run(config: Path, output: Path, kill_after: Callable[[], bool] | None = None) -> bool:
    """Runs the evaluation's command; True when it went to its end, False when it was killed.

    Args:
        config: the config.
        output: the run folder.
        kill_after: asked again and again; the whole process group is killed once it says so.
    """
    command = [sys.executable, "-m", "evaluation.run", str(config), f"output={output}"]
    log = output.with_suffix(".log")
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        while process.poll() is None:
            if kill_after and kill_after():
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return False
            time.sleep(0.01)
    if process.returncode:
        raise RuntimeError(f"the evaluation failed: {log.read_text(encoding='utf-8')[-800:]}")
    return True


def rows_in(folder: Path) -> int:
    """Rows of both steps that are on disk."""
    files = [folder / "m" / name for name in (*COMPARED, "unscored.jsonl")]
    return sum(path.read_bytes().count(b"\n") for path in files if path.is_file())


def run_killed(config: Path, output: Path, rows: int, kills: int, rng: random.Random) -> int:
    """Kills a run at random moments, starts it again each time, and lets it go to its end; gives the kills made."""
    made = 0
    for moment in sorted(rng.sample(range(1, rows), kills)):
        pause = rng.uniform(0, 0.3)

        def due(moment: int = moment, pause: float = pause) -> bool:
            if rows_in(output) < moment:
                return False
            time.sleep(pause)
            return True

        if run(config, output, due):
            break
        made += 1
        print(f"kill {made}: at {rows_in(output)} rows", flush=True)
    run(config, output)
    return made


@contextmanager
def serving(provider: Provider) -> Iterator[str]:
    """The server on loopback, in a thread; gives its base URL."""
    apps = {role: create_app(provider.choose, role) for role in ("m", "judge")}

    async def app(scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            models = json.dumps({"data": [{"id": role} for role in apps]}).encode()
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
            )
            await send({"type": "http.response.body", "body": models})
        else:
            await apps["m"](scope, receive, send)

    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


def measure(dialogues: int, kills: int, seed: int, root: Path) -> dict[str, Any]:
    """Both runs; what is wrong with them, and their figures."""
    whole, killed, first, second = root / "whole", root / "killed", Provider(), Provider()
    with serving(first) as url:
        run(prepare(root, url, dialogues), whole)
    problems, losses = wrong(whole / "m", dialogues)
    if told(whole / "m") != losses:
        problems.append(f"the run counted {dict(told(whole / 'm'))}, lost are {dict(losses)}")
    with serving(second) as url:
        made = run_killed(prepare(root, url, dialogues), killed, rows_in(whole), kills, random.Random(seed))
    for name in COMPARED:
        if (whole / "m" / name).read_bytes() != (killed / "m" / name).read_bytes():
            problems.append(f"{name} differs after {made} kills")
    if told(killed / "m") != losses:
        problems.append(f"after {made} kills the run counted {dict(told(killed / 'm'))}, lost are {dict(losses)}")
    scored = sum(1 for row in read_verdicts(whole / "m" / "verdicts.jsonl") if row.scores)
    return {
        "problems": problems,
        "losses": dict(sorted(losses.items())),
        "scored": scored,
        "calls": dict(first.calls),
        "faults": first.failed.total(),
        "kinds": len(first.failed),
        "calls_killed": dict(second.calls),
        "kills": made,
    }


def main(argv: list[str] | None = None) -> int:
    """Runs, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, default=1500, help="of four turns each")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--random-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        found = measure(arguments.dialogues, arguments.kills, arguments.random_seed, Path(name))
    print(json.dumps({key: value for key, value in found.items() if key != "problems"}, indent=1))
    print(
        "; ".join(found["problems"][:20])
        or "every score is the server's, every loss has its reason, both runs are equal"
    )
    calls = sum(found["calls"].values())
    name = f"{calls:,} calls, {found['faults']:,} of them faults of {found['kinds']} kinds"
    figure = Figure(name, "problems", len(found["problems"]), "right in everything", 0, 1.0)
    settings = {"dialogues": arguments.dialogues, "kills": arguments.kills, "random_seed": arguments.random_seed}
    return write_figures(arguments.out, "faulty_provider", [figure], settings=settings, details=found)


if __name__ == "__main__":
    sys.exit(main())
