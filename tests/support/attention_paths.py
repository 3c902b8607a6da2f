"""A program, run by test_attention_paths.py: verl's real engine on one CPU rank, along each attention path, against
transformers' own model in fp32, row by row, eager attention and torch's log-softmax.

    python tests/support/attention_paths.py FOLDER small|wide CASE...      a case: fp32-untied, bf16-tied-lora, ...

Prints one JSON line: case -> path -> the largest differences of log-probs, entropies and gradients from the reference;
`own` is transformers' own model in bf16 along none of the two paths.
"""

import gc
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

IMAGE, VIDEO, VISION_START = 1655, 1656, 1652
WORDS = {"small": 2000, "wide": 4000}
TEMPERATURE = 0.8
# Rows of three micro-batches of two: (text tokens, [picture grids in patches]).
ROWS = [(23, [(8, 6)]), (41, []), (17, []), (29, []), (12, [(4, 4), (10, 12)]), (37, [(6, 6)])]


def kind_of(case: str) -> str:
    """The `model_type` of a case's model."""
    return "qwen3_vl" if "qwen3" in case else "qwen2_5_vl"


def make_config(size: str, tied: bool, kind: str):
    """The widths, vocabulary and heads of a family's smallest model or a small one like it; few layers."""
    from tiny_families import config_of_type, narrow

    config = config_of_type(kind)
    if kind == "qwen2_5_vl":
        config.vision_config.fullatt_block_indexes = [1]  # the other one has windows
    text = config.text_config
    text.vocab_size = WORDS[size]
    config.image_token_id, config.video_token_id, config.vision_start_token_id = IMAGE, VIDEO, VISION_START
    for part in (config, text):
        part.bos_token_id = part.eos_token_id = part.pad_token_id = 0
    if size == "small":
        narrow(config)
    config.tie_word_embeddings = text.tie_word_embeddings = tied
    return config


def save_model(folder: Path, size: str, case: str) -> None:
    """Random weights; for bf16 rounded to it, so that all paths start from the same ones."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(make_config(size, "untied" not in case, kind_of(case)))
    model.to(torch.bfloat16 if "bf16" in case else torch.float32).save_pretrained(folder)


def make_rows(size: str, kind: str):
    """Token ids and pictures of each row, and factors (2, length) of its log-probs and entropies in the loss."""
    generator, rows = torch.Generator().manual_seed(1), []
    for tokens, grids in ROWS:
        parts = []
        for height, width in grids:
            parts += [torch.tensor([VISION_START]), torch.full((height * width // 4,), IMAGE)]
        ids = torch.cat([*parts, torch.randint(1700, WORDS[size], (tokens,), generator=generator)])
        width = 3 * 2 * (16 if kind == "qwen3_vl" else 14) ** 2  # channels, times, patch
        pixels = torch.randn(sum(h * w for h, w in grids), width, generator=generator)
        factors = torch.randn(2, len(ids), generator=generator)
        factors[:, -1] = 0  # nothing follows the last token
        rows.append(SimpleNamespace(ids=ids, grids=[(1, *grid) for grid in grids], pixels=pixels, factors=factors))
    return rows


def reference(folder: Path, rows, dtype=torch.float32):
    """Log-probs and entropies of every row, and the gradients, by transformers alone; its layers in `dtype`."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    values = []
    for row in rows:
        pictures = {"pixel_values": row.pixels, "image_grid_thw": torch.tensor(row.grids)} if row.grids else {}
        kinds = (row.ids == IMAGE).int().unsqueeze(0)
        states = model.model(input_ids=row.ids.unsqueeze(0), mm_token_type_ids=kinds, use_cache=False, **pictures)[0][0]
        logits = states.float() @ model.lm_head.weight.float().T
        log_p = (logits.double() / TEMPERATURE).log_softmax(-1)
        picked = log_p[:-1].gather(1, row.ids[1:, None]).squeeze(1)
        entropy = -(log_p.exp() * log_p).sum(1)[:-1]
        ((picked * row.factors[0, :-1]).sum() + (entropy * row.factors[1, :-1]).sum()).backward()
        values.append((picked.detach(), entropy.detach()))
    return values, {name: parameter.grad for name, parameter in model.named_parameters()}


def start_engine(folder: Path, path: str, case: str):
    """An engine of verl as its worker makes it, with the config keys that a run has."""
    from omegaconf import OmegaConf
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
    from verl.workers.engine import EngineRegistry

    from safer_steer_verl.platform.attention import IMPLEMENTATIONS

    model = HFModelConfig(
        path=str(folder),
        external_lib="safer_steer_verl.platform.engine",
        load_tokenizer=False,
        use_remove_padding=path != "padded",
        override_config={"attn_implementation": IMPLEMENTATIONS[path]},
        use_fused_kernels=True,
        fused_kernel_options={"impl_backend": "torch"},
        lora_rank=4 if "lora" in case else 0,
        exclude_modules=".*visual.*" if "lora" in case else None,
    )
    engine = EngineRegistry.new(
        model_type="language_model",
        backend="fsdp2",
        model_config=model,
        engine_config=FSDPEngineConfig(
            strategy="fsdp2",
            model_dtype="fp32",
            mixed_precision=OmegaConf.create({"param_dtype": case[:4], "reduce_dtype": "fp32", "buffer_dtype": "fp32"}),
            use_torch_compile=False,
        ),
        optimizer_config=FSDPOptimizerConfig(lr=0.0, total_training_steps=1),
        checkpoint_config=CheckpointConfig(),
    )
    torch.manual_seed(2)  # of an adapter's weights
    engine._build_model_optimizer()
    return engine


def make_batch(rows, path: str, kind: str):
    """The batch as verl's trainer hands it to a worker."""
    from tensordict import TensorDict
    from verl.models.transformers import qwen2_vl, qwen3_vl
    from verl.utils import tensordict_utils as tu

    words = {"<|image_pad|>": IMAGE, "<|video_pad|>": VIDEO, "<|vision_start|>": VISION_START}
    processor = SimpleNamespace(
        image_processor=SimpleNamespace(merge_size=2),
        tokenizer=SimpleNamespace(convert_tokens_to_ids=words.get),
        **{"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": VISION_START},
    )
    get_rope_index = (qwen3_vl if kind == "qwen3_vl" else qwen2_vl).get_rope_index
    positions, pictures = [], []
    for row in rows:
        grids = torch.tensor(row.grids) if row.grids else None
        visual = get_rope_index(processor, row.ids, grids, attention_mask=torch.ones_like(row.ids))
        positions.append(torch.cat([torch.arange(len(row.ids)).unsqueeze(0), visual]))
        pictures.append({"pixel_values": row.pixels, "image_grid_thw": grids} if row.grids else {})
    nested = {
        "input_ids": [row.ids for row in rows],
        "position_ids": positions,
        "loss_mask": [torch.ones_like(row.ids) for row in rows],
        "p_factors": [row.factors[0] for row in rows],
        "h_factors": [row.factors[1] for row in rows],
    }
    tensors = {name: torch.nested.as_nested_tensor(items, layout=torch.jagged) for name, items in nested.items()}
    batch = TensorDict(tensors, batch_size=len(rows))
    tu.assign_non_tensor_stack(batch, "multi_modal_inputs", pictures)
    settings = {
        "temperature": TEMPERATURE,
        "use_remove_padding": path != "padded",
        "use_fused_kernels": True,
        "use_dynamic_bsz": False,
        "micro_batch_size_per_gpu": 2,
        "calculate_entropy": True,
        "pad_token_id": 0,
        "return_model_output": True,
    }
    tu.assign_non_tensor(batch, **settings)
    return batch


def loss_function(model_output, data, dp_group=None):
    """A weighted sum of all log-probs and entropies, as in the reference."""
    loss = (model_output["log_probs"].values() * data["p_factors"].values()).sum()
    return loss + (model_output["entropy"].values() * data["h_factors"].values()).sum(), {}


def run_engine(engine, rows, path: str, kind: str, forward_only: bool):
    """Values of every row, and the gradients where it trains."""
    from safer_steer_verl.platform.position_ids import fix_3d_position_ids

    batch = make_batch(rows, path, kind)
    fix_3d_position_ids(batch)
    mode = engine.eval_mode() if forward_only else engine.train_mode(zero_grad_on_exit=False)
    with mode:
        function = None if forward_only else loss_function
        output = engine.forward_backward_batch(batch, loss_function=function, forward_only=forward_only)
    log_probs, entropies = (output["model_output"][name].unbind() for name in ("log_probs", "entropy"))
    values = [(p.detach()[:-1], h.detach()[:-1]) for p, h in zip(log_probs, entropies, strict=True)]
    full = {name: p.grad for name, p in engine.module.named_parameters() if p.grad is not None}
    return values, {name: getattr(grad, "full_tensor", lambda g=grad: g)() for name, grad in full.items()}


def differences(values, grads, wanted_values, wanted_grads) -> dict[str, float]:
    """The largest absolute differences in nat; of gradients as a share of the largest, and of all as one vector."""
    p = max(float((a[0] - b[0]).abs().max()) for a, b in zip(values, wanted_values, strict=True))
    h = max(float((a[1] - b[1]).abs().max()) for a, b in zip(values, wanted_values, strict=True))
    all_p = torch.cat([a[0] - b[0] for a, b in zip(values, wanted_values, strict=True)])
    found = {"log_probs": p, "entropy": h, "log_probs_rms": float(all_p.square().mean().sqrt())}
    if grads:
        shared = {name: wanted_grads[name] for name in grads}
        largest = max(float(grad.abs().max()) for grad in shared.values())
        found["gradients"] = max(float((grads[n] - g).abs().max() / largest) for n, g in shared.items())
        length = sum(float(g.norm()) ** 2 for g in shared.values()) ** 0.5
        found["all_gradients"] = sum(float((grads[n] - g).norm()) ** 2 for n, g in shared.items()) ** 0.5 / length
    return found


def compare(folder: Path, path: str, case: str, rows, wanted, first):
    """One engine along one path: what differs from the reference and, under LoRA, from the first path's gradients."""
    engine = start_engine(folder, path, case)
    values, grads = run_engine(engine, rows, path, kind_of(case), forward_only=False)
    old_values, _ = run_engine(engine, rows, path, kind_of(case), forward_only=True)
    found = differences(values, {} if "lora" in case else grads, *wanted)
    if "lora" in case and first:
        found["gradients"] = differences(values, grads, *first)["gradients"]
    found["old_log_probs"] = differences(old_values, {}, values, {})["log_probs"]
    found["parameters"] = len(grads)
    found["saved_config_names_kernels"] = "attn_implementation" in engine.module.config.to_json_string()
    return found, (values, grads) if "lora" in case else None


def main() -> None:
    folder, size, *cases = sys.argv[1:]
    folder = Path(folder)
    os.environ |= {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "safer_steer_verl.platform.cpu"}
    rows, wanted, answer = {case: make_rows(size, kind_of(case)) for case in cases}, {}, {case: {} for case in cases}
    for case in cases:  # before verl changes transformers' classes
        save_model(folder / case, size, case)
        wanted[case] = reference(folder / case, rows[case])
        if "bf16" in case:
            answer[case]["own"] = differences(*reference(folder / case, rows[case], torch.bfloat16), *wanted[case])
    import safer_steer_verl.platform.engine  # noqa: F401
    import varlen_kernel

    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    firsts = {}
    for path in ("padded", "varlen"):
        if path == "varlen":
            varlen_kernel.install()
        for case in cases:
            found, values = compare(folder / case, path, case, rows[case], wanted[case], firsts.get(case))
            answer[case][path] = found
            firsts.setdefault(case, values)
            gc.collect()  # the engine refers to itself
    calls = varlen_kernel.CALLS
    answer["kernel"] = {
        "packed": sum(call["rows"] > 1 and call["causal"] for call in calls),
        "windows": sum(call["rows"] > 1 and not call["causal"] for call in calls),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
