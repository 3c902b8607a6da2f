"""Doubles at the rollout server's edge and for the tutor, and one trajectory played on verl's real agent-loop base."""

import asyncio
import dataclasses
import io
from types import SimpleNamespace

from omegaconf import OmegaConf
from PIL import Image

from builders import png
from safer_steer.rubric import TurnScores
from safer_steer.verdict import Unscored
from safer_steer.vlm import family_of


class Engine:
    """Stands in for the rollout server: gives out the scripted answers, checks what it is sent."""

    def __init__(self, tokenizer, answers):
        self.tokenizer, self.answers, self.calls = tokenizer, list(answers), []

    async def generate(self, *, prompt_ids, sampling_params, image_data=None, **_):
        answer = self.answers[len(self.calls)]
        self.calls.append(SimpleNamespace(ids=list(prompt_ids), images=len(image_data or []), sampling=sampling_params))
        if isinstance(answer, Exception):
            raise answer
        ids = self.tokenizer(answer, add_special_tokens=False)["input_ids"] if isinstance(answer, str) else answer
        ids = ids[: sampling_params["max_tokens"]]
        extra = {"min_global_steps": len(self.calls), "max_global_steps": len(self.calls)}
        return SimpleNamespace(token_ids=ids, log_probs=[-0.5] * len(ids), extra_fields=extra)


class Tutor:
    """Scores turn t with t + 5 and adapts every question; `unscored_at` (1-based) loses that turn's score."""

    def __init__(self, unscored_at=0, question="turn {turn} ?"):
        self.unscored_at, self.question, self.seen, self.notes = unscored_at, question, [], []
        self.client = SimpleNamespace(stats=lambda: {"calls": len(self.seen)})

    async def step(self, history, images, user, answer, static_next, shown, note):
        from safer_steer_verl.interactions.safety_tutor import TutorTurn

        self.seen.append((list(history), list(shown), user, answer))
        self.notes.append(note)
        assert sum(shown) == len(images)
        turn = len(self.seen)
        if turn == self.unscored_at:
            return Unscored(outcome="transport", detail="503")
        following = None if static_next is None else self.question.format(turn=turn + 1)
        scores = TurnScores(safety=turn + 5, usefulness=turn + 5, faithfulness=10)
        return TutorTurn(
            scores=scores, diagnosis="", attack_strategy="none", next_user=following, adapted=following is not None
        )


def make_config(*, response_length=200, max_tokens=16, calculate=True, **ours):
    rollout = {"response_length": response_length, "prompt_length": 64, "max_model_len": 64 + response_length}
    rollout |= {"calculate_log_probs": calculate, "agent": {"num_workers": 1}}
    section = {
        "tutor": {"model": "t", "base_url": "http://127.0.0.1:1/v1"},
        "turns": {"max_tokens": max_tokens, "min_tokens": 4},
        "data": {"source": "none"},
    }
    return OmegaConf.create({"actor_rollout_ref": {"rollout": rollout}, "data": {}, "safer_steer": section | ours})


async def play_one(processor, config, engine, *, turns=3, later=(), first_picture=True, name="static", system=()):
    """One trajectory in the running event loop, with the tutor that `share_tutor` set or the config's own."""
    from verl.experimental.agent_loop.agent_loop import DictConfigWrap
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from safer_steer_verl.agent_loop import SafetyTutorLoop

    loop = SafetyTutorLoop(
        trainer_config=DictConfigWrap(config),
        server_manager=engine,
        tokenizer=processor.tokenizer,
        processor=processor,
        dataset_cls=RLHFDataset,
        data_config=DictConfigWrap(config.data),
        hf_model_type=family_of(processor.tokenizer, processor).model_types[0],
    )
    picture = {"type": "image", "image": Image.open(io.BytesIO(png((84, 84))))}
    statics = [f"{name} {turn} ?" for turn in range(1, turns + 1)]
    info = {"dialogue": "d", "source": "s", "kind": "red_team", "strategy": "", "images": ["a.png"], "image_turns": []}
    text = {"type": "text", "text": statics[0]}
    return await loop.run(
        {"temperature": 1.0},
        raw_prompt=[*system, {"role": "user", "content": [picture, text] if first_picture else statics[0]}],
        extra_info=info | {"turns": statics},
        later_images=list(later),
        uid="group",
        session_id=0,
    )


def share_tutor(config, tutor):
    from safer_steer_verl import agent_loop

    shared = agent_loop.shared_for(config)
    agent_loop._shared[asyncio.get_running_loop()] = dataclasses.replace(shared, tutor=tutor)


def play(processor, answers, *, turns=3, tutor=None, later=(), first_picture=True, system=(), **settings):
    """Plays one trajectory; returns (output, engine, tutor)."""
    config = make_config(**settings)
    tutor, engine = tutor or Tutor(), Engine(processor.tokenizer, answers)

    async def run():
        share_tutor(config, tutor)
        return await play_one(
            processor, config, engine, turns=turns, later=later, first_picture=first_picture, system=system
        )

    return asyncio.run(run()), engine, tutor


def record_of(output):
    from safer_steer_verl.trajectory import RECORD_KEY, TrajectoryRecord

    return TrajectoryRecord.model_validate(output.extra_fields[RECORD_KEY])
