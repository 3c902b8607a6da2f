"""A picture takes equally many tokens in SFT, GRPO's preparation, rollout and trainer, and evaluation: random sizes
through the stages' own code, verl's data set and vLLM's own processing; 50 of them, nightly 500. A running server:
tests/evaluation/test_served_tokens.py.
"""

import asyncio
import io
import math
import random
from types import SimpleNamespace

import pytest
from PIL import Image

from builders import dialogue
from rollout_doubles import make_config
from safer_steer.images import ImageStore, load_image
from safer_steer.picture_size import MAX_PIXELS
from safer_steer.store import write_jsonl
from safer_steer.vlm import family_of
from tiny_families import QWEN, model_of, processor_of

pytestmark = pytest.mark.timeout(3600)
SEED = 20
# Smallest, ratio 200, about the limit of 200 after rounding, the largest that ingest keeps, and the known case.
SPECIAL = [(1, 1), (28, 28), (27, 29), (28, 5600), (5600, 28), (29, 5790), (5, 990), (1001, 1001), (1024, 768), (6, 7)]


def random_sizes(number):
    draw = random.Random(SEED)
    found = list(SPECIAL)
    while len(found) < number:
        width = math.exp(draw.uniform(math.log(4), math.log(3000)))
        aspect = math.exp(draw.choice([draw.gauss(0, 0.5), draw.uniform(-5.2, 5.2)]))
        if 1 <= (height := width / aspect) <= 6000 and width * height < 4e6:
            found.append((round(width), round(height)))
    return found


@pytest.fixture(scope="module", params=QWEN, ids=lambda family: family.name)
def processor(request):
    """The student's words with the released picture processor of a family: its class and its values."""
    return processor_of(request.param)


@pytest.fixture(scope="module", params=[50, pytest.param(500, marks=pytest.mark.nightly)])
def rows(request, tmp_path_factory):
    """A folder with so many stored pictures and dialogues that show one at the first turn and another at the second."""
    root = tmp_path_factory.mktemp("sizes")
    store = ImageStore(root)
    stored = []
    for number, size in enumerate(random_sizes(request.param)):
        picture = Image.new("RGB", size, (number % 256, number // 256, 90))
        picture.paste((255, 255, 255), (0, 0, size[0] // 2, size[1] // 2))
        stored.append(store.put(load_image(picture)))
    turns = {"user": "What is it ?", "assistant": "red", "images": [0]}, {"user": "and this ?", "assistant": "no"}
    turns[1]["images"] = [1]
    made = [dialogue(f"d{n}", *turns, images=[path, stored[n - 1]]) for n, path in enumerate(stored)]
    write_jsonl(root / "rows.jsonl", made)
    return root, made


@pytest.fixture(scope="module")
def in_sft(processor, rows):
    """Tokens of each dialogue's two pictures, as SFT encodes them; its collator checks the processor's own count."""
    from training.sft.collator import DialogueCollator
    from training.sft.config import ImageConfig
    from training.sft.data import PictureTokens
    from training.sft.encode import DialogueEncoder
    from training.sft.model import limit_pictures

    root, dialogues = rows
    ours = processor_of(family_of(processor.tokenizer, processor))
    size = limit_pictures(ours, ImageConfig())
    encoder = DialogueEncoder(ours, 10**6, PictureTokens(size, root))
    collate, found = DialogueCollator(ours), []
    for row in dialogues:
        encoded = encoder.encode(row)
        pictures = [str(root / path) for path in encoded.pictures]
        batch = collate([{"id": "r", "input_ids": encoded.input_ids, "labels": encoded.labels, "pictures": pictures}])
        grids = batch["image_grid_thw"].prod(-1) // 4
        assert int(grids.sum()) == encoded.input_ids.count(ours.image_token_id)
        found.append(grids.tolist())
    return found


def test_grpo_counts_as_sft_does(processor, rows, in_sft, tmp_path):
    """Preparation, the agent loop's first and later pictures, the rollout's ids and the trainer's features."""
    import pyarrow.parquet as pq
    from omegaconf import OmegaConf
    from verl.experimental.agent_loop.agent_loop import AgentLoopWorker, DictConfigWrap
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from safer_steer_verl.agent_loop import SafetyTutorLoop, _user
    from safer_steer_verl.settings import DataConfig
    from safer_steer_verl.utils.token_accounting import TokenAccount
    from training.grpo.prepare import PromptBuilder, prepare

    root, dialogues = rows
    data = DataConfig(source=str(root / "rows.jsonl"))
    builder = PromptBuilder(processor, data, 100_000)
    assert prepare(builder, [data.source], tmp_path)["kept"] == len(dialogues)
    table = pq.read_table(tmp_path / "train.parquet").to_pylist()
    settings = OmegaConf.create({"cache_dir": str(tmp_path), "return_raw_chat": True, "filter_overlong_prompts": False})
    dataset = RLHFDataset(str(tmp_path / "train.parquet"), processor.tokenizer, settings, processor)
    config = make_config()
    config.actor_rollout_ref.rollout.prompt_length = 100_000
    loop_parts = {"server_manager": None, "tokenizer": processor.tokenizer, "processor": processor}
    loop_parts |= {"dataset_cls": RLHFDataset, "data_config": DictConfigWrap(config.data)}
    words = builder.prompt_length("What is it ?", [])
    kind = family_of(processor.tokenizer, processor).model_types[0]

    async def play():
        loop = SafetyTutorLoop(DictConfigWrap(config), hf_model_type=kind, **loop_parts)
        worker = SimpleNamespace(processor=processor, tokenizer=processor.tokenizer)
        account = TokenAccount(processor.tokenizer, processor)
        for row, item, (first, later), played in zip(table, dataset, in_sft, dialogues, strict=True):
            messages = list(item["raw_prompt"])
            images = (await loop.process_multi_modal_info(messages))["images"]
            ids = await loop.ct_build_initial_tokens(messages, images=images)
            assert ids.count(processor.image_token_id) == first, played.id
            prepared = Image.open(io.BytesIO(row["images"][0]["bytes"]))
            assert builder.prompt_length("What is it ?", [prepared]) - words - 2 == first  # 2: start and end
            assert images[0].tobytes() == prepared.tobytes(), "resized once, in the preparation"
            following = await loop._later_images(row["later_images"], 1)
            message = _user("and this ?", following)
            history = [*messages, {"role": "assistant", "content": "red"}]
            end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
            merged, *_ = await loop.ct_merge_context_msg(history, [*history, message], [*ids, end], [1], [0.0])
            both = [*images, *following]
            assert merged.token_ids.count(processor.image_token_id) == first + later, played.id
            assert account.placeholder_problem(merged.token_ids, both) is None
            if len(both[1].tobytes()) < 3e5 or played.id.endswith("0"):  # the features of all would take a minute
                import torch

                output = SimpleNamespace(multi_modal_data={"images": both}, mm_processor_kwargs={})
                made = AgentLoopWorker._compute_multi_modal_inputs(worker, output, torch.tensor([merged.token_ids]))
                assert (made["image_grid_thw"].prod(-1) // 4).tolist() == [first, later], played.id

    asyncio.run(play())


def test_evaluation_and_vllm_count_as_sft_does(processor, rows, in_sft, tmp_path):
    """The picture that evaluation sends, counted by the code of the installed vLLM, with and without our limit."""
    from vllm.config import ModelConfig
    from vllm.multimodal import MULTIMODAL_REGISTRY

    from evaluation.benchmarks import BenchmarkDialogue
    from evaluation.pictures import ShownPictures, served_size

    root, dialogues = rows
    family = family_of(processor.tokenizer, processor)
    model_of(family, processor.tokenizer, layers=1).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    size, limit = served_size(str(tmp_path / "model"), MAX_PIXELS, agree=True)
    assert limit == MAX_PIXELS
    tasks = [BenchmarkDialogue("b", row, root) for row in dialogues]
    shown = ShownPictures(size, tmp_path / "shown")
    shown.prepare(tasks, "test")

    def engine(**limits):
        model = {"model": str(tmp_path / "model"), "max_model_len": 1024, "dtype": "float32"}
        info = MULTIMODAL_REGISTRY.create_processor(ModelConfig(**model, mm_processor_kwargs=limits or None)).info
        return info, info.get_image_processor(**limits)

    limited, own = engine(max_pixels=limit), engine()
    for task, expected in zip(tasks, in_sft, strict=True):
        for [path], tokens in zip(shown.of(task), expected, strict=True):
            with Image.open(path) as picture:
                at = {"image_width": picture.width, "image_height": picture.height}
            for info, image_processor in (limited, own):
                assert info.get_num_image_tokens(**at, image_processor=image_processor, mm_kwargs={}) == tokens, path
    # What the engine makes room for at its start: the largest picture that it may get.
    assert limited[0].get_max_image_tokens() == MAX_PIXELS // family.picture_unit**2
    assert own[0].get_max_image_tokens() == 16384
