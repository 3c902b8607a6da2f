"""Check 3: every model that a stage calls gives one verdict with the largest picture, then several at once."""

import asyncio
import random
import time
from pathlib import Path

from PIL import Image

from evaluation.multi_turn.judge import judge_prompt
from rehearsal.subjects import Subject
from safer_steer.chat import user_message
from safer_steer.errors import UserError
from safer_steer.llm import EndpointConfig, LLMClient
from safer_steer.llm.config import api_key
from safer_steer.machine import Finding
from safer_steer.picture_size import MAX_PIXELS, PictureSize
from safer_steer.rubric import JudgeScores
from safer_steer.servers import referenced, start_services, with_service_urls
from safer_steer.verdict import Outcome, Unscored
from safer_steer_verl.interactions.safety_tutor import SafetyTutor, TutorConfig, load_prompt

BURST = 8  # calls at once
QUESTION, ANSWER = "What does the picture show?", "It shows a pattern."


def check_servers(subject: Subject, picture: Path | None, logs: Path) -> tuple[list[Finding], dict[str, float]]:
    """Findings, and calls per minute of each role that answered."""
    endpoints = list(subject.roles.values())
    try:
        services = referenced(subject.services, endpoints)
    except UserError as error:
        return [Finding("servers", str(error), "configured services", "breaks")], {}
    own = {name for name, service in services.items() if service.vllm}  # of a checkpoint that may not be there yet
    findings, rates = [], {}
    with start_services({name: item for name, item in services.items() if name not in own}, logs) as urls:
        for role, endpoint in subject.roles.items():
            if {f"service:{name}" for name in own} & set(endpoint.urls()):
                findings.append(Finding(role, "a checkpoint that the run serves", "its start", "not checked"))
                continue
            found, rate = asyncio.run(_ask(role, with_service_urls(endpoint, urls), picture, subject.max_pixels))
            findings.append(found)
            if rate:
                rates[role] = rate
    return findings, rates


async def _ask(
    role: str, endpoint: EndpointConfig, picture: Path | None, max_pixels: int | None
) -> tuple[Finding, float | None]:
    client = LLMClient(
        role, endpoint.model_copy(update={"max_retries": 1, "rate_limit_wait_s": 60, "outage_wait_s": 0})
    )
    where = f"{client.config.model} at {', '.join(client.config.urls())}"
    key = "with a key" if api_key(role) else "without a key"
    try:
        await client.check()
        started = time.monotonic()
        problem = await _call(client, role, picture, max_pixels)
        first = time.monotonic() - started
        if problem:
            return Finding(
                role, f"{where}: {problem}", "a verdict", "breaks", "check model, key and context length"
            ), None
        number = min(BURST, client.config.concurrency)
        started = time.monotonic()
        problems = await asyncio.gather(*(_call(client, role, picture, max_pixels) for _ in range(number)))
        rate = 60 * number / max(time.monotonic() - started, 1e-3)
    except UserError as error:
        advice = f"start it, set {role.upper()}_API_BASE_URL and {role.upper()}_API_KEY, or correct the config"
        return Finding(role, str(error), "a server that answers", "breaks", advice), None
    finally:
        await client.close()
    lost = [problem for problem in problems if problem]
    said = f"{where}, {key}: a verdict in {first:.1f} s, {number} at once: {rate:,.0f} a minute"
    if lost:
        return Finding(
            role, f"{said}; {len(lost)} of {number} failed: {lost[0]}", "all", "warning", "lower concurrency"
        ), rate
    return Finding(role, said, "a verdict", "ok"), rate


async def _call(client: LLMClient, role: str, picture: Path | None, max_pixels: int | None) -> str | None:
    """One call as the stage makes it; returns what was wrong."""
    pictures = [picture] if picture else [largest_picture(max_pixels or MAX_PIXELS)]
    if role == "tutor":
        config = client.config
        prompt = load_prompt(config.prompt if isinstance(config, TutorConfig) else None)
        turn = await SafetyTutor(client, prompt=prompt).step([], pictures, QUESTION, ANSWER, "And what else?")
        return turn.reason if isinstance(turn, Unscored) else None
    if role.startswith("judge"):
        prompt = judge_prompt().render(conversation={"history": [], "user": QUESTION, "assistant": ANSWER})
        result = await client.structured([user_message(prompt, pictures)], JudgeScores, name="judge")
        return None if result.outcome == Outcome.OK else f"{result.outcome}: {result.detail}"
    reply = await client.chat([user_message(f"{QUESTION} Answer in one word.", pictures)])
    return None if reply.outcome == Outcome.OK else f"{reply.outcome}: {reply.detail}"


def largest_picture(max_pixels: int) -> Image.Image:
    """Noise of the largest area, which compresses to nothing smaller."""
    side, _ = PictureSize(max_pixels=max_pixels).fit(max_pixels, max_pixels)
    return Image.frombytes("RGB", (side, side), random.Random(0).randbytes(3 * side * side))
