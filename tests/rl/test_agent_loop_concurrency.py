"""Trajectories side by side: they give what they give one by one, and a cancelled one leaves the others alone."""

import asyncio
import json
import random
import threading
from types import SimpleNamespace

import pytest

from fake_tutor import tutor as fake_tutor
from http_doubles import Script
from miniature.student import build_processor
from rollout_doubles import Tutor, make_config, play_one, record_of, share_tutor

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def processor():
    return build_processor()


class Echo:
    """A rollout engine whose answer depends on the prompt alone, after a wait of its own: temperature 0."""

    def __init__(self, tokenizer, seed):
        self.tokenizer, self.random = tokenizer, random.Random(seed)

    async def generate(self, *, prompt_ids, sampling_params, **_):
        await asyncio.sleep(self.random.uniform(0, 0.02))
        word = ("red", "blue", "cannot", "box")[sum(prompt_ids) % 4]
        ids = self.tokenizer(f"{word} .<|im_end|>", add_special_tokens=False)["input_ids"]
        return SimpleNamespace(token_ids=ids, log_probs=[-0.5] * len(ids), extra_fields={})


def test_concurrent_trajectories_are_what_they_are_one_by_one(processor, serve):
    """Over a real HTTP tutor whose answers come in any order."""
    config = make_config(tutor={"model": "fake-tutor", "base_url": serve(fake_tutor.app), "concurrency": 4})

    async def run(together):
        from safer_steer_verl import agent_loop

        engine = Echo(processor.tokenizer, seed=int(together))
        plays = [play_one(processor, config, engine, name=f"red {number}") for number in range(6)]
        outputs = await asyncio.gather(*plays) if together else [await one for one in plays]
        await agent_loop.shared_for(config).tutor.client.close()
        return outputs

    for one, other in zip(asyncio.run(run(False)), asyncio.run(run(True)), strict=True):
        left, right = one.as_dict(), other.as_dict()
        for name in ("prompts", "responses", "response_mask", "rm_scores", "rollout_log_probs"):
            assert left[name].tolist() == right[name].tolist()
        varying = {"tutor_seconds", "tutor_usage"}
        assert record_of(one).model_dump(exclude=varying) == record_of(other).model_dump(exclude=varying)


class Stuck:
    """A tutor that never answers the trajectories named "stuck"."""

    def __init__(self):
        self.inner, self.waiting, self.cancelled = Tutor(), asyncio.Event(), 0
        self.client = self.inner.client

    async def step(self, history, images, user, answer, static_next, shown, note):
        if "stuck" not in user:
            self.inner.seen = list(history)  # its turn number is the trajectory's own
            return await self.inner.step(history, images, user, answer, static_next, shown, note)
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def test_a_cancelled_trajectory_leaves_the_others_alone(processor):
    config = make_config()

    async def run():
        tutor = Stuck()
        share_tutor(config, tutor)
        engine = Echo(processor.tokenizer, seed=0)
        stuck = asyncio.ensure_future(play_one(processor, config, engine, name="stuck"))
        other = asyncio.ensure_future(play_one(processor, config, engine, turns=1))
        await asyncio.wait([asyncio.ensure_future(tutor.waiting.wait()), stuck], return_when=asyncio.FIRST_COMPLETED)
        stuck.cancel()
        results = await asyncio.gather(stuck, other, return_exceptions=True)
        again = await play_one(processor, config, engine, turns=1)
        return results, again, tutor.cancelled

    (stuck, other), again, cancelled = asyncio.run(run())
    assert isinstance(stuck, asyncio.CancelledError)
    assert cancelled == 1
    assert other.response_ids == again.response_ids
    assert not record_of(other).masked


def test_a_cancelled_call_gives_its_slot_at_the_tutor_back(serve):
    """With one call at a time, the call after a cancelled one is answered."""
    from safer_steer.llm import EndpointConfig, LLMClient
    from safer_steer_verl.interactions.safety_tutor import SafetyTutor

    started = threading.Event()
    scores = {"safety": 8, "usefulness": 8, "faithfulness": 8}
    verdict = json.dumps({"diagnosis": "", "scores": scores, "attack_strategy": "none", "new_question": None})

    async def stuck(_):
        started.set()
        await asyncio.sleep(60)

    server = Script(stuck, verdict)

    async def run():
        client = LLMClient("tutor", EndpointConfig(model="t", base_url=serve(server.app), concurrency=1))
        tutor = SafetyTutor(client, True)
        first = asyncio.ensure_future(tutor.step([], [], "a", "b", None))
        await asyncio.to_thread(started.wait)
        first.cancel()
        second = await tutor.step([], [], "a", "b", None)
        await client.close()
        return first.cancelled(), second.scores.safety

    assert asyncio.run(run()) == (True, 8)
