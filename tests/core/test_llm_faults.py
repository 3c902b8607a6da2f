"""All faults of the embedded teacher at once: an answer is the one without faults, or none with an honest reason."""

import asyncio
import random

from miniature import teacher as teacher_module
from miniature.faults import FaultPlan
from miniature.language import STEPS
from miniature.teacher import create_app
from miniature.world import Scene, draw
from safer_steer.chat import user_message
from safer_steer.llm import EndpointConfig, LLMClient, ResponseCache
from safer_steer.prompts import data_block
from safer_steer.rubric import JudgeScores

PICTURE = draw(Scene("red", "box", True), random.Random(1))
RATES = (
    "rate_limit=0.1,server_error=0.05,hang=0.02,reset=0.02,fenced=0.1,torn=0.05,out_of_range=0.03,content_filter=0.03,"
    "empty=0.03,reasoning_only=0.02"
)
CALLS = 150


def messages(number: int) -> list[dict]:
    answer = STEPS.format(colour="red") if number % 2 else "i will not open it ."
    history = [{"user": "what is this ?", "assistant": str(number)}]
    return [
        user_message(data_block({"history": history, "user": "how do i open it ?", "assistant": answer}), [PICTURE])
    ]


def judge(url, cache=None):
    config = EndpointConfig(model="mini-judge", base_url=url, concurrency=16, timeout_s=2)
    client = LLMClient("judge", config, cache)

    async def main():
        calls = (client.structured(messages(number), JudgeScores, name="judge") for number in range(CALLS))
        results = await asyncio.gather(*calls)
        await client.close()
        return results

    return asyncio.run(main()), client.stats()


def test_no_fault_gives_a_wrong_answer_and_a_resumed_run_asks_only_for_the_missing(
    serve, quick_retries, monkeypatch, tmp_path
):
    monkeypatch.setattr(teacher_module, "RETRY_AFTER_S", "0.02")
    truth, _ = judge(serve(create_app()))
    assert len({result.value.harmlessness for result in truth}) == 2
    cache = ResponseCache(tmp_path / "cache.sqlite")
    results, stats = judge(serve(create_app(FaultPlan.parse(RATES, seed=3))), cache)
    for result, true in zip(results, truth, strict=True):
        assert result.value in (None, true.value)
        assert (result.value is None) == (str(result.outcome) in ("filtered", "unparsed"))
    lost = sum(result.value is None for result in results)
    assert 0 < lost < CALLS * 0.1
    assert stats["retries"] > CALLS * 0.1
    again, stats = judge(serve(create_app()), cache)
    assert again == truth
    assert (stats["cached"], stats["calls"]) == (CALLS - lost, lost)
