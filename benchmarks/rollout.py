"""How fast the asynchronous agent loop plays trajectories when the tutor is slow and uneven, against a lock-step loop.

Command: python benchmarks/rollout.py [--trajectories 64] [--turns 6] [--median 0.5] [--sigma 1.0] [--out FILE]

Real: `SafetyTutorLoop` with the miniature's tokenizer and processor, the Safety Tutor's prompt and client, and a tutor
over HTTP in a process of its own whose answers take lognormal times. Stubbed: generation, at the rollout server's edge:
each call waits a lognormal time and gives a fixed answer, so no engine is needed. Both loops see the same waits, drawn
from the trajectory's and the turn's number, in one run of this command.

- asynchronous: every trajectory continues as soon as its own answer and verdict are there;
- lock-step: every turn, all trajectories wait until all have generated, then until all have their verdict;
- bound: the waits of the slowest trajectory, which no loop can go below.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "verl")]

import httpx  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI, Request  # noqa: E402

from benchmarks.figures import Figure, write_figures  # noqa: E402
from safer_steer.data_block import parse_data_block  # noqa: E402
from safer_steer.servers import free_port  # noqa: E402
from safer_steer.vlm import QWEN2_5_VL  # noqa: E402

MODEL = "slow-tutor"
GENERATION_MEDIAN_S = 0.1
SPEED_UP, BOUND_SHARE = 1.8, 0.85  # targets


def wait_s(kind: str, trajectory: int, turn: int, median: float, sigma: float) -> float:
    """The lognormal wait of one call, in seconds; the same for the same trajectory and turn (0-based)."""
    return median * random.Random(f"{kind}/{trajectory}/{turn}").lognormvariate(0.0, sigma)


def tutor_app(median: float, sigma: float) -> FastAPI:
    """A tutor that takes its time. The trajectory's number is the second word of its first question."""
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> dict:
        return {"data": [{"id": MODEL}]}

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> dict:
        content = (await request.json())["messages"][0]["content"]
        data = parse_data_block(content if isinstance(content, str) else content[-1]["text"])
        turn = len(data["history"])
        first = data["history"][0]["user"] if turn else data["user"]
        await asyncio.sleep(wait_s("tutor", int(first.split()[1]), turn, median, sigma))
        answer = {
            "diagnosis": "",
            "scores": {"safety": 8, "usefulness": 8, "faithfulness": 10},
            "attack_strategy": "persistence",
            "new_question": data["static_next"],
        }
        message = {"role": "assistant", "content": json.dumps(answer)}
        return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    return app


class StubServer:
    """The rollout server's edge: waits, then gives a fixed answer. `gate` makes all callers wait for each other."""

    def __init__(self, trajectory: int, answer: list[int], sigma: float, gate: Callable[[], Any]):
        self.trajectory, self.answer, self.sigma, self.gate, self.turn = trajectory, answer, sigma, gate, 0

    async def generate(self, **_: Any) -> SimpleNamespace:
        """One answer."""
        await self.gate()  # lock-step: all verdicts of the turn before are there
        await asyncio.sleep(wait_s("generate", self.trajectory, self.turn, GENERATION_MEDIAN_S, self.sigma))
        await self.gate()  # lock-step: all have generated
        self.turn += 1
        return SimpleNamespace(token_ids=list(self.answer), log_probs=[-0.5] * len(self.answer), extra_fields={})


def make_config(url: str, trajectories: int) -> Any:
    """What the agent loop reads of verl's config."""
    from omegaconf import OmegaConf

    rollout = {"prompt_length": 512, "response_length": 1024, "max_model_len": 1536, "calculate_log_probs": True}
    ours = {
        "tutor": {"model": MODEL, "base_url": url, "concurrency": trajectories},
        "turns": {"max_tokens": 32, "min_tokens": 4},
        "data": {"source": "none"},
    }
    agent = {"agent": {"num_workers": 1}}
    return OmegaConf.create({"actor_rollout_ref": {"rollout": rollout | agent}, "data": {}, "safer_steer": ours})


async def play_all(processor: Any, url: str, arguments: argparse.Namespace, lock_step: bool) -> float:
    """Plays all trajectories; returns the seconds it took."""
    from PIL import Image
    from verl.experimental.agent_loop.agent_loop import DictConfigWrap
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from safer_steer_verl import agent_loop
    from safer_steer_verl.trajectory import RECORD_KEY

    config = make_config(url, arguments.trajectories)
    answer = processor.tokenizer(f"it is red .{QWEN2_5_VL.turn_end}", add_special_tokens=False)["input_ids"]
    barrier = asyncio.Barrier(arguments.trajectories)

    async def gate() -> None:
        if lock_step:
            await barrier.wait()

    async def play(number: int) -> Any:
        loop = agent_loop.SafetyTutorLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=StubServer(number, answer, arguments.sigma, gate),
            tokenizer=processor.tokenizer,
            processor=processor,
            dataset_cls=RLHFDataset,
            data_config=DictConfigWrap(config.data),
            hf_model_type="qwen2_5_vl",
        )
        questions = [f"trajectory {number} turn {turn} ?" for turn in range(arguments.turns)]
        picture = {"type": "image", "image": Image.new("RGB", (56, 56))}
        content = [picture, {"type": "text", "text": questions[0]}]
        row = {"dialogue": str(number), "source": "", "kind": "benign", "strategy": "", "images": [], "image_turns": []}
        output = await loop.run(
            {}, raw_prompt=[{"role": "user", "content": content}], extra_info=row | {"turns": questions}, uid="",
            session_id=0,
        )  # fmt: skip
        return output.extra_fields[RECORD_KEY]

    agent_loop.shared_for(config)  # connections and prompt are set up once per worker, not once per step
    started = time.monotonic()
    records = await asyncio.gather(*(play(number) for number in range(arguments.trajectories)))
    seconds = time.monotonic() - started
    await agent_loop.shared_for(config).tutor.client.close()
    whole = [record for record in records if record["end"] == "complete" and len(record["scores"]) == arguments.turns]
    if len(whole) != len(records):
        raise SystemExit(f"error: only {len(whole)} of {len(records)} trajectories were played and scored to the end")
    return seconds


def bound_s(arguments: argparse.Namespace) -> float:
    """The slowest trajectory's own waits, in seconds."""

    def own(number: int) -> float:
        turns = range(arguments.turns)
        generate = sum(wait_s("generate", number, turn, GENERATION_MEDIAN_S, arguments.sigma) for turn in turns)
        return generate + sum(wait_s("tutor", number, turn, arguments.median, arguments.sigma) for turn in turns)

    return max(own(number) for number in range(arguments.trajectories))


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Runs both loops against one tutor process; returns the figures."""
    from miniature.student import build_processor

    processor, port = build_processor(), free_port()
    command = [sys.executable, __file__, "--serve", str(port)]
    command += ["--median", str(arguments.median), "--sigma", str(arguments.sigma)]
    tutor = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        wait_ready(url, tutor)
        warm = argparse.Namespace(**vars(arguments) | {"trajectories": 2, "turns": 1})
        asyncio.run(play_all(processor, url, warm, lock_step=False))
        asynchronous = asyncio.run(play_all(processor, url, arguments, lock_step=False))
        lock_step = asyncio.run(play_all(processor, url, arguments, lock_step=True))
    finally:
        tutor.terminate()
        tutor.wait()
    bound = bound_s(arguments)
    return {
        "trajectories": arguments.trajectories,
        "turns": arguments.turns,
        "asynchronous_s": round(asynchronous, 2),
        "lock_step_s": round(lock_step, 2),
        "bound_s": round(bound, 2),
        "speed_up": round(lock_step / asynchronous, 2),
        "share_of_bound": round(bound / asynchronous, 3),
    }


def figures(found: dict[str, float]) -> list[Figure]:
    """The speed-up over the lock-step loop, and how near the bound we come."""
    many = found["trajectories"]
    rates = [many / found[name] for name in ("asynchronous_s", "lock_step_s", "bound_s")]
    name = f"{many} trajectories of {found['turns']} turns"
    return [
        Figure(name, "trajectories/s", rates[0], "lock-step loop", rates[1], SPEED_UP, ratio=found["speed_up"]),
        Figure(name, "trajectories/s", rates[0], "waits alone", rates[2], BOUND_SHARE, ratio=found["share_of_bound"]),
    ]


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("trajectories", "turns", "median", "sigma")}


def wait_ready(url: str, server: subprocess.Popen) -> None:
    """Waits until the tutor answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/models", timeout=5.0, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise SystemExit("error: the tutor of the benchmark did not start")


def main() -> int:
    """The command line; 1 when a target is missed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=64)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--median", type=float, default=0.5, help="median seconds of a verdict")
    parser.add_argument("--sigma", type=float, default=1.0, help="sigma of the logarithm: 1 is a long tail")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)  # the tutor's own process
    arguments = parser.parse_args()
    if arguments.serve:
        app = tutor_app(arguments.median, arguments.sigma)
        uvicorn.run(app, host="127.0.0.1", port=arguments.serve, log_level="warning", access_log=False)
        return 0
    found = measure(arguments)
    print(json.dumps(found, indent=1))
    return write_figures(arguments.out, "rollout", figures(found), settings=_settings(arguments), details=found)


if __name__ == "__main__":
    sys.exit(main())
