"""One trajectory of Stage III: the student (rollout engine) and the Safety Tutor in turns (Sec. 4.4, Eq. 17).

Input: a row of `train.parquet` (first user turn with pictures, static turns, later pictures). Output: verl's
`AgentLoopOutput`: ids, mask 1 on generated ids only, the return R as reward, and a `TrajectoryRecord`. verl makes one
`SafetyTutorLoop` a trajectory, so all state is that trajectory's; the tutor's client alone is shared by a worker.
"""

import asyncio
import io
import logging
import math
import weakref
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from omegaconf import OmegaConf
from PIL import Image
from ray.exceptions import RayError
from verl.experimental.agent_loop.agent_loop import AgentLoopBase
from verl.utils.profiler import simple_timer

from safer_steer.answer_tags import LONGEST_MARK, form_note, opening_at_end, with_opening
from safer_steer.config import validate
from safer_steer.errors import RunAborted, UserError
from safer_steer.failures import in_one_line
from safer_steer.llm import LLMClient
from safer_steer.plain_text import as_plain_text, names_of_tokenizer
from safer_steer.verdict import Outcome, Unscored
from safer_steer.vlm import family_of
from safer_steer_verl.beats import TURN, VERDICT, beat
from safer_steer_verl.interactions.safety_tutor import SafetyTutor, TutorTurn, load_prompt
from safer_steer_verl.rollout_output import Tokens, TrajectoryOutput
from safer_steer_verl.settings import SaferSteerSettings
from safer_steer_verl.trajectory import RECORD_KEY, TrajectoryRecord
from safer_steer_verl.utils.own_reward import Reward, ScoredTurn
from safer_steer_verl.utils.tcsr import trajectory_return, turn_values, with_missing
from safer_steer_verl.utils.token_accounting import TokenAccount, keep_turn, special_token_ids
from safer_steer_verl.utils.turn_reward import safety_reward

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shared:
    """What all trajectories of a worker share: settings, one long-lived tutor and the reward.

    `worker` names it among those of every node and of every attempt of the run.
    """

    settings: SaferSteerSettings
    tutor: SafetyTutor
    reward: Reward
    worker: str = field(default_factory=lambda: uuid4().hex)


_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Shared] = weakref.WeakKeyDictionary()


def shared_for(config: Any) -> Shared:
    """The running event loop's settings, tutor and reward, made at first use."""
    loop = asyncio.get_running_loop()
    if loop not in _shared:
        section = OmegaConf.to_container(config.safer_steer, resolve=True)
        settings = validate(SaferSteerSettings, section, "safer_steer")
        workers = config.actor_rollout_ref.rollout.agent.num_workers
        client = LLMClient("tutor", settings.tutor.share(workers))
        prompt = load_prompt(settings.tutor.prompt, settings.policy)
        tutor = SafetyTutor(client, settings.feedback_dynamics, settings.turns.tutor_budget_s, prompt)
        _shared[loop] = Shared(settings, tutor, Reward(settings.reward))
    return _shared[loop]


class SafetyTutorLoop(AgentLoopBase):
    """2-10 turns: answer, score, next question; every assistant turn is scored, the last one too.

    A trajectory ends after the row's number of turns (`complete`), when a turn no longer fits (`context_full`), or
    when a turn could not be generated or scored (`rollout_failed`, `unscored`): then its response mask is all zeros and
    its reward NaN, and it leaves its group before the mean; so does one whose tokens are not what the chat template
    says. Everything a trajectory holds is local to `run`, so a cancelled one leaves nothing behind: its call slot at
    the tutor is given back, and no other trajectory notices.
    """

    def __init__(self, *args: Any, tools: Any = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.response_length = self.rollout_config.response_length
        self.max_model_len = self.rollout_config.max_model_len or math.inf
        self.end_id = self.tokenizer.convert_tokens_to_ids(family_of(self.tokenizer, self.processor).turn_end)
        self.special_ids = special_token_ids(self.tokenizer)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> TrajectoryOutput:
        """Plays one trajectory.

        Args:
            sampling_params: verl's sampling parameters.
            **kwargs: the row's fields and verl's uid and session_id.
        """
        shared = shared_for(self.config)
        row = kwargs["extra_info"]
        statics = [str(text) for text in row["turns"]]
        messages = list(kwargs["raw_prompt"])
        media = await self.process_multi_modal_info(messages)
        images = list(media.get("images") or [])
        shown = [len(images)]  # pictures of each turn
        self._assert_mm_supported(bool(images))
        ids = await self.ct_build_initial_tokens(messages, images=images)
        tokens = Tokens(ids=ids, prompt_length=len(ids))
        opening = opening_at_end(self.tokenizer.decode(ids[-LONGEST_MARK:]))
        account = TokenAccount(self.tokenizer, self.processor, template_kwargs=dict(self.apply_chat_template_kwargs))
        record = _new_record(row, statics, kwargs)
        engine_fields: dict[str, Any] = {}
        metrics: dict[str, Any] = {}
        request_id = uuid4().hex

        for turn in range(len(statics)):
            room = self._room(tokens)
            if room < shared.settings.turns.min_tokens:
                record.end = "context_full"
                break
            try:
                with simple_timer("generate_sequences", metrics):
                    output = await self.server_manager.generate(
                        request_id=request_id,
                        prompt_ids=tokens.ids,
                        sampling_params={**sampling_params, "max_tokens": min(shared.settings.turns.max_tokens, room)},
                        image_data=images or None,
                        mm_processor_kwargs=self._get_mm_processor_kwargs(),
                    )
            except RayError as error:  # the engine failed, or its process is gone
                record.end, record.unscored = "rollout_failed", True
                record.reason = f"turn {turn + 1}: {in_one_line(error)}"
                break
            beat(TURN)
            first = engine_fields.get("min_global_steps", output.extra_fields.get("min_global_steps"))
            engine_fields = {**output.extra_fields, "min_global_steps": first}
            answer = await self._append_answer(tokens, output, record)
            user = record.users[turn]
            record.answers.append(answer)
            messages = [*messages, {"role": "assistant", "content": answer}]
            static_next = statics[turn + 1] if turn + 1 < len(statics) else None
            history = list(zip(record.users[:turn], record.answers[:turn], strict=True))
            with simple_timer("tool_calls", metrics):
                spoken = shared.settings.answer_format.split
                heard = [(asked, spoken(with_opening(earlier, opening)).answer) for asked, earlier in history]
                said = spoken(with_opening(answer, opening))
                record.format_problems += bool(said.problem)
                told = (heard, images, user, said.answer.strip(), static_next, shown, form_note(said.problem))
                result = await _verdict(shared.tutor, *told)
            beat(VERDICT)
            if isinstance(result, Unscored):
                record.end, record.unscored, record.reason = "unscored", True, f"turn {turn + 1}: {result.reason}"
                break
            seen = tuple(history), tuple(images)
            scored = ScoredTurn(*seen, record.kind, result.scores, user, answer, said.answer.strip())
            try:
                reward = await shared.reward(scored)
            except UserError as error:
                record.end, record.reward_fault, record.reason = "reward_failed", True, f"turn {turn + 1}: {error}"
                break
            _note_turn(record, result, reward)
            if result.next_user is None:
                break
            question = as_plain_text(result.next_user, names_of_tokenizer(self.tokenizer))
            new_images = await self._later_images(kwargs.get("later_images"), turn + 1)
            message = _user(question, new_images)
            if not await self._append_question(tokens, messages, message, shared.settings):
                record.end = "context_full"
                break
            messages = [*messages, message]
            images += new_images
            shown.append(len(new_images))
            record.users.append(question)

        if record.answers:
            self._check_tokens(tokens, account, messages, images, shared.settings, record)
        else:
            tokens.close_turn(self.end_id)  # verl needs a response of at least one token, here a masked one
        _finish(record, tokens, shared)
        return self._output(record, tokens, images, media, shared.settings, engine_fields, metrics)

    def _room(self, tokens: Tokens) -> int:
        """Tokens the next answer may have, one being kept for an end token."""
        return min(self.response_length - len(tokens.mask), self.max_model_len - len(tokens.ids)) - 1

    async def _append_answer(self, tokens: Tokens, output: Any, record: TrajectoryRecord) -> str:
        """Adds a generated turn (mask 1) and, if it was cut, the end token (mask 0); returns the answer's text."""
        kept = keep_turn(output.token_ids, self.end_id, self.special_ids)
        logps = list(output.log_probs or [0.0] * len(output.token_ids))[: len(kept.ids)]
        merged, tokens.mask, tokens.logps = await self.ct_merge_assistant_token(
            tokens.ids, kept.ids, tokens.mask, tokens.logps, assistant_logprobs=logps
        )
        tokens.ids = merged.token_ids
        tokens.turn_ends.append(len(tokens.mask) - 1 if kept.ids else len(tokens.mask))
        record.generated_tokens += len(kept.ids)
        if not kept.closed:
            tokens.close_turn(self.end_id)
            record.cut_turns += 1
        text_ids = kept.ids[:-1] if kept.closed else kept.ids
        return self.tokenizer.decode(text_ids)

    async def _append_question(
        self, tokens: Tokens, messages: list[dict], message: dict, settings: SaferSteerSettings
    ) -> bool:
        """Adds the next user turn (mask 0) if an answer still fits after it; else leaves everything as it was."""
        merged, mask, logps = await self.ct_merge_context_msg(
            messages, [*messages, message], tokens.ids, tokens.mask, tokens.logps
        )
        grown = Tokens(merged.token_ids, tokens.prompt_length, mask, logps)
        if self._room(grown) < settings.turns.min_tokens:
            return False
        tokens.ids, tokens.mask, tokens.logps = grown.ids, grown.mask, grown.logps
        return True

    async def _later_images(self, later: Any, turn: int) -> list[Image.Image]:
        """The pictures first shown at a turn (0-based), sized as verl sizes the first ones."""
        found = [item["bytes"] for item in (later if later is not None else []) if int(item["turn"]) == turn]
        if not found:
            return []
        content = [{"type": "image", "image": Image.open(io.BytesIO(data))} for data in found]
        media = await self.process_multi_modal_info([{"role": "user", "content": content}])
        return list(media.get("images") or [])

    def _check_tokens(
        self,
        tokens: Tokens,
        account: TokenAccount,
        messages: list[dict],
        images: list[Image.Image],
        settings: SaferSteerSettings,
        record: TrajectoryRecord,
    ) -> None:
        if settings.token_check == "off":
            return
        problem = account.problem(tokens.ids, messages) or account.placeholder_problem(tokens.ids, images)
        if problem is None and sum(tokens.mask) != record.generated_tokens:
            problem = f"{sum(tokens.mask)} ones in the mask, {record.generated_tokens} generated tokens"
        if problem is None:
            return
        logger.warning("dialogue %s: token accounting: %s", record.dialogue_id, problem)
        if settings.token_check == "strict" and not (record.unscored or record.reward_fault):
            record.token_fault, record.reason = True, f"token accounting: {problem}"

    def _output(
        self,
        record: TrajectoryRecord,
        tokens: Tokens,
        images: list[Image.Image],
        media: dict[str, Any],
        settings: SaferSteerSettings,
        engine_fields: dict[str, Any],
        metrics: dict[str, Any],
    ) -> TrajectoryOutput:
        if images:
            media["images"] = images
        metrics["num_preempted"] = -1
        turn_rewards: list[tuple[int, float]] = []
        if settings.credit == "turn" and record.ret is not None:
            share = 1 / len(record.tcsr) if settings.tcsr.return_rule == "mean" else 1.0  # the turns add up to R
            last = len(tokens.turn_ends) - 1  # what is missing after it follows from it
            values = [*record.tcsr[:last], sum(record.tcsr[last:])]
            turn_rewards = [(at, share * value) for at, value in zip(tokens.turn_ends, values, strict=True)]
        return TrajectoryOutput(
            prompt_ids=tokens.ids[: tokens.prompt_length],
            response_ids=tokens.ids[tokens.prompt_length :],
            response_mask=[0] * len(tokens.mask) if record.masked else tokens.mask,
            response_logprobs=tokens.logps if self.rollout_config.calculate_log_probs else None,
            multi_modal_data=media,
            mm_processor_kwargs=self._get_mm_processor_kwargs(),
            num_turns=2 * len(record.answers),
            reward_score=math.nan if record.ret is None else record.ret,
            turn_rewards=turn_rewards,
            metrics=metrics,
            extra_fields={**engine_fields, RECORD_KEY: record.model_dump(mode="json")},
        )


async def _verdict(tutor: SafetyTutor, *turn: Any) -> TutorTurn | Unscored:
    """The tutor's step; a client that gives up leaves a turn unscored, and the trainer's stop rule ends the run."""
    try:
        return await tutor.step(*turn)
    except RunAborted as error:
        return Unscored(outcome=Outcome.TRANSPORT, detail=str(error))


def _new_record(row: dict[str, Any], statics: list[str], kwargs: dict[str, Any]) -> TrajectoryRecord:
    return TrajectoryRecord(
        dialogue_id=row["dialogue"],
        source=row["source"],
        kind=row["kind"],
        strategy=row["strategy"] or None,
        images=list(row["images"]),
        image_turns=[[int(i) for i in shown] for shown in row["image_turns"]],
        group=str(kwargs["uid"]),
        rollout=int(kwargs["session_id"]),
        users=statics[:1],
        statics=statics,
    )


def _note_turn(record: TrajectoryRecord, result: TutorTurn, reward: float) -> None:
    record.scores.append(result.scores)
    record.rewards.append(reward)
    record.strategies.append(result.attack_strategy)
    record.diagnoses.append(result.diagnosis)
    record.relocked += result.relocked
    record.tutor_seconds.append(round(result.seconds, 4))
    if result.next_user is not None:
        record.adapted.append(result.adapted)


def _finish(record: TrajectoryRecord, tokens: Tokens, shared: Shared) -> None:
    """Fills in TCSR, return and mask; a trajectory with an unscored turn, or without a token to train on, is masked.

    One that ended early counts with failures in place of its missing turns.
    """
    record.mask_tokens = sum(tokens.mask)
    record.turn_ends = [end if tokens.mask[end] else None for end in tokens.turn_ends]
    record.tutor_usage = {"worker": shared.worker, "stats": shared.tutor.client.stats()}
    if record.unscored or record.token_fault or record.reward_fault:
        record.masked = True
        return
    if record.mask_tokens == 0:
        record.masked, record.reason = True, f"no generated token ({record.end})"
        return
    rule = shared.settings.tcsr
    scores = record.rewards if rule.over == "reward" else [safety_reward(score) for score in record.scores]
    over = with_missing(scores, len(record.statics))
    record.tcsr = turn_values(over, rule)
    record.ret = trajectory_return(over, rule)


def _user(question: str, images: list[Image.Image]) -> dict[str, Any]:
    if not images:
        return {"role": "user", "content": question}
    parts = [{"type": "image", "image": image} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": question}]}
