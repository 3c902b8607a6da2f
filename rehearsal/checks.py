"""Checks that take seconds: the machine (1, 2), sizes that stages must agree on (4), ranks that meet (7)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rehearsal.rows import Row
from rehearsal.subjects import Subject
from safer_steer import machine
from safer_steer.addresses import is_loopback
from safer_steer.errors import UserError
from safer_steer.images import load_image
from safer_steer.llm.config import api_key
from safer_steer.machine import Finding, gb
from safer_steer.picture_size import PictureSize, limit_problem, processor_tokens
from safer_steer.weights import is_hub_id
from safer_steer_verl.platform import attention
from training.sft.config import SftConfig

ATTEMPT_S = 300
NEEDED = "the same in all stages"


def check_machine(subject: Subject) -> list[Finding]:
    """1 and 2: GPUs, driver, folders, disk, memory; what a CPU in place of GPUs cannot show is said."""
    needs = subject.needs
    if not subject.replaced:
        return machine.check(needs)
    here = machine.folder(needs)
    size = f"{gb(needs.disk)} ({needs.disk_why})" if needs.disk else "not known"
    memory = f"{gb(needs.host)} ({needs.host_why})" if needs.host else "not known"
    why = "not checked here (device=cpu)"
    for check, needed in (
        ("GPUs, driver", f"{needs.gpus} GPUs on each of {needs.nodes} node(s)"),
        ("disk of the real run", size),
        ("host memory of the real run", memory),
    ):
        here.append(Finding(check, why, needed, "not checked"))
    return here


def check_write_speed(subject: Subject) -> Finding:
    """2: how long a checkpoint takes to write, against the time after which the other ranks give up."""
    place = machine.existing(subject.needs.folder)
    try:
        speed = machine.write_speed(place, 64)
    except OSError as error:
        return Finding("write speed", f"{place}: {error.strerror}", "a folder to write to", "breaks")
    one = subject.needs.disk / 3
    seconds, limit = one / speed, _timeout(subject)
    found = f"{gb(speed)} a second; a checkpoint in about {seconds:,.0f} s"
    verdict = "breaks" if limit and seconds > limit else "ok"
    key = "training.stall_s" if subject.kind == "sft" else "actor_rollout_ref.nccl_timeout"
    advice = f"write to a faster disk, or raise {key}" if verdict == "breaks" else ""
    needed = f"less than {limit:,.0f} s, when other ranks give up" if limit else "no limit"
    return Finding("write speed", found, needed, verdict, advice)


def _timeout(subject: Subject) -> float:
    if subject.kind == "grpo":
        return float(subject.config.verl["actor_rollout_ref"].get("nccl_timeout") or 600)
    return float(subject.config.training.stall_s) if subject.kind == "sft" else 0.0


def check_attention(subject: Subject) -> tuple[list[Finding], float]:
    """1: one forward and backward pass on the path that training takes; returns also the GPU's memory in bytes."""
    path, real = "padded", "padded"  # SFT's is torch's sdpa
    if subject.kind == "grpo":
        setting = subject.config.safer_steer.attention
        real = attention.choose(setting, subject.needs.device)
        path = attention.choose("auto" if subject.replaced else setting, subject.device)
    check, needed = "attention", "a forward and a backward pass, finite gradients"
    found = _json_of([sys.executable, "-m", "rehearsal.engines", "attention", subject.device, path])
    if "error" in found:
        advice = "safer_steer.attention=padded needs no kernel" if subject.kind == "grpo" else "check nvidia-smi"
        return [Finding(check, f"{path}: {found['error']}", needed, "breaks", advice)], 0.0
    said = f"{path}: {found['seconds']} s"
    if subject.device == "cuda":
        said += f"; {found['gpus']} x {found['name']}, compute capability {found['capability']}, {gb(found['memory'])}"
    findings = [Finding(check, said, needed, "ok" if found["finite"] else "breaks")]
    if real != path:
        findings.append(Finding(f"{check}, {real}", "not checked here (device=cpu)", needed, "not checked"))
    return findings, float(found.get("memory", 0.0))


def check_ranks(subject: Subject) -> Finding:
    """7: a sum over the ranks of this node, or of all nodes where NNODES, NODE_RANK and MASTER_ADDR are set."""
    nodes = int(os.environ.get("NNODES", "1"))
    local = 1 if subject.replaced else subject.needs.gpus or _processes(subject)
    check, needed = (
        "all-reduce",
        f"{subject.needs.gpus or 1} rank(s) on each of {subject.needs.nodes} node(s)",
    )
    if local * nodes <= 1:
        if subject.replaced and (subject.needs.gpus > 1 or subject.needs.nodes > 1):
            return Finding(check, "not checked here (device=cpu)", needed, "not checked")
        return Finding(check, "one rank", needed, "ok")
    place = ["--standalone"]
    if nodes > 1:
        address, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), os.environ.get("MASTER_PORT", "29500")
        rank = os.environ.get("NODE_RANK", "0")
        place = ["--nnodes", str(nodes), "--node-rank", rank, "--master-addr", address, "--master-port", port]
    run = [sys.executable, "-m", "torch.distributed.run", *place, "--nproc-per-node", str(local)]
    found = _json_of([*run, "-m", "rehearsal.engines", "all_reduce", subject.device])
    if "error" in found:
        return Finding(check, found["error"], needed, "breaks", "check NCCL_SOCKET_IFNAME, firewalls and /dev/shm")
    said = f"{found['ranks']} ranks, {gb(found['bytes_per_s'])} a second"
    if nodes == 1 and subject.needs.nodes > 1:
        advice = "on every node: NNODES, NODE_RANK and MASTER_ADDR set, then this command at the same time"
        return Finding(check, f"{said}; this node alone", needed, "not checked", advice)
    return Finding(check, said, needed, "ok" if found["right"] else "breaks")


def _processes(subject: Subject) -> int:
    return subject.config.training.processes if subject.kind == "sft" else 1


def _json_of(command: list[str]) -> dict[str, Any]:
    """The last line of a child's output as JSON, or its error."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=ATTEMPT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {ATTEMPT_S} s"}
    lines = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    if ran.returncode or not lines:
        last = [line.strip() for line in ran.stderr.splitlines() if line.strip()]
        return {"error": (last or [f"code {ran.returncode}"])[-1][:300]}
    return json.loads(lines[-1])


def check_sizes(subjects: list[Subject]) -> list[Finding]:
    """4: largest picture, the same in all stages that show pictures to the model."""
    limits = {subject.kind: subject.max_pixels for subject in subjects if subject.max_pixels}
    if not limits:
        return []
    said = ", ".join(f"{kind} {limit}" for kind, limit in limits.items())
    same = len(set(limits.values())) == 1
    advice = "set images.max_pixels, safer_steer.data.max_pixels and the evaluation's max_pixels to one value"
    return [Finding("largest picture, px", said, NEEDED, "ok" if same else "breaks", "" if same else advice)]


def check_addresses(subject: Subject) -> list[Finding]:
    """3, without a call: addresses that other nodes cannot reach, and keys that the environment lacks."""
    findings = []
    for role, endpoint in subject.roles.items():
        for url in endpoint.urls():
            loopback = is_loopback(url)
            if subject.needs.nodes > 1 and loopback:
                advice = f"give an address that all nodes reach ({role.upper()}_API_BASE_URL; docs/several_nodes.md)"
                needed = f"an address for {subject.needs.nodes} nodes"
                findings.append(Finding(role, f"{url} is this node alone", needed, "breaks", advice))
            elif url.startswith("https://") and not loopback and api_key(role) is None:
                advice = f"set {role.upper()}_API_KEY, or OPENAI_API_KEY for all roles"
                said = f"{url}: no key is in the environment"
                findings.append(Finding(role, said, "a key, if the server asks", "warning", advice))
    return findings


def check_model(subject: Subject) -> list[Finding]:
    """Whether the checkpoint that a stage starts from is there, with its processor."""
    if subject.model is None:
        return []
    folder = Path(subject.model)
    check, needed = "checkpoint", "config.json, weights and processor"
    if is_hub_id(subject.model):
        return [Finding(check, f"{subject.model}, of the hub", needed, "ok")]
    if not (folder / "config.json").is_file():
        advice = "random weights take its place here; the stage before writes it, or correct its path"
        return [Finding(check, f"{folder} is not there yet", needed, "warning", advice)]
    lost = [name for name in ("tokenizer_config.json", "chat_template.jinja") if not (folder / name).is_file()]
    lost += (
        []
        if any((folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json"))
        else ["processor_config.json"]
    )
    lost += [] if any(folder.glob("*.safetensors")) else ["*.safetensors"]
    if lost:
        advice = "copy them from the model that it was trained from"
        return [Finding(check, f"{folder} lacks {', '.join(lost)}", needed, "breaks", advice)]
    return [Finding(check, str(folder), needed, "ok")]


def check_sampling(subject: Subject, model: Path) -> list[Finding]:
    """4: sampling values of the checkpoint's generation_config that an engine might take over unseen."""
    file = model / "generation_config.json"
    if subject.kind not in ("grpo", "evaluation") or not file.is_file():
        return []
    own = json.loads(file.read_text(encoding="utf-8"))
    neutral = {"repetition_penalty": 1.0, "temperature": 1.0, "top_p": 1.0, "top_k": (0, -1, 50)}
    odd = {
        name: own[name]
        for name, plain in neutral.items()
        if name in own and own[name] not in (plain if isinstance(plain, tuple) else (plain,))
    }
    if not odd:
        return [Finding("sampling", "the checkpoint changes nothing", "the config's values", "ok")]
    said = ", ".join(f"{name} {value}" for name, value in odd.items())
    arguments = subject.raw.get("serving", {}).get("arguments", []) if subject.kind == "evaluation" else []
    used = "the engine is started with --generation-config vllm, which leaves them out" if "vllm" in arguments else ""
    return [Finding("sampling", f"generation_config.json has {said}", "the config's values", "ok", used)]


def check_rows(subject: Subject, rows: list[Row], processor: Any) -> list[Finding]:
    """4: how the stage takes real rows: kept, shortened or rejected, and the tokens of their pictures."""
    if subject.kind == "sft":
        return [_sft_rows(subject, rows, processor)]
    if subject.kind == "grpo":
        return [_grpo_rows(subject, rows, processor)]
    return []


def _sft_rows(subject: Subject, rows: list[Row], processor: Any) -> Finding:
    from training.answers import Unusable
    from training.sft.data import PictureTokens, last_turn
    from training.sft.encode import DialogueEncoder

    config: SftConfig = subject.config
    kept = shortened = 0
    lost: list[str] = []
    longest = 0
    for row in rows:
        tokens = PictureTokens(PictureSize.of(processor.image_processor, config.images.max_pixels), row.folder)
        encoder = DialogueEncoder(processor, config.max_length, tokens, config.answer_format.system)
        dialogue = last_turn(row.dialogue) if config.turns == "last" else row.dialogue
        try:
            encoded = encoder.encode(dialogue)
        except (Unusable, UserError) as error:
            lost.append(str(error))
            continue
        kept += 1
        shortened += encoded.turns < len(dialogue.turns)
        longest = max(longest, len(encoded.input_ids))
    said = f"{kept} of {kept + len(lost)} rows kept, {shortened} shortened, the longest has {longest:,} tokens"
    verdict = "breaks" if not kept else "warning" if lost or shortened else "ok"
    advice = f"rejected: {lost[0][:200]}" if lost else "raise max_length to keep their last turns" if shortened else ""
    return Finding("rows", said, f"at most {config.max_length:,} tokens", verdict, advice)


def _grpo_rows(subject: Subject, rows: list[Row], processor: Any) -> Finding:
    from safer_steer.rows import Reject
    from training.grpo.prepare import PromptBuilder

    ours, limit = subject.config.safer_steer, subject.config.verl["data"]["max_prompt_length"]
    template = subject.config.verl["data"].get("apply_chat_template_kwargs") or {}
    builder = PromptBuilder(processor, ours.data, limit, dict(template), ours.answer_format.system)
    made = [builder.row(row.dialogue, index, row.folder) for index, row in enumerate(rows)]
    lost = [item for item in made if isinstance(item, Reject)]
    said = f"{len(made) - len(lost)} of {len(made)} prompts kept"
    verdict = "breaks" if len(lost) == len(made) else "warning" if lost else "ok"
    advice = f"rejected: {lost[0].reason}: {lost[0].detail}"[:250] if lost else ""
    return Finding("prompts", said, f"at most {limit:,} tokens", verdict, advice)


def check_pictures(subjects: list[Subject], rows: list[Row], processor: Any) -> list[Finding]:
    """4: tokens of the rows' pictures in every stage, and by the checkpoint's own processor on what the stage shows."""
    stages = [subject for subject in subjects if subject.max_pixels]
    paths = list(dict.fromkeys((row.folder, path) for row in rows for path in row.dialogue.images))
    sizer = processor.image_processor
    findings = []
    for subject in stages:
        if problem := limit_problem(sizer, subject.max_pixels or 0):
            advice = "train and show with one max_pixels"
            findings.append(Finding(f"{subject.kind}: picture limit", problem, NEEDED, "breaks", advice))
    differ, most = 0, 0
    for folder, path in paths:
        width, height = load_image(path, root=folder).size
        counts = set()
        for subject in stages:
            size = PictureSize.of(sizer, subject.max_pixels)
            counts |= {size.tokens(width, height), processor_tokens(sizer, *size.fit(width, height))}
        differ += len(counts) > 1
        most = max(most, *counts)
    if not paths or not stages:
        return findings
    said = f"{len(paths)} pictures, at most {most} tokens; {differ} have other numbers elsewhere"
    advice = "one value of max_pixels in all stages" if differ else ""
    return [*findings, Finding("picture tokens", said, NEEDED, "breaks" if differ else "ok", advice)]
