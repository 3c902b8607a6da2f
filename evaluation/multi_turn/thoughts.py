"""Whether a checkpoint's chat template opens a thought in the prompt: the answer then holds only the thought's end."""

from pathlib import Path

from safer_steer.answer_tags import opening_at_end
from safer_steer.weights import is_hub_id


def thought_opening(checkpoint: str) -> str:
    """The mark with which the template opens a thought, by rendering it; "" for none, or where it cannot be rendered.

    Args:
        checkpoint: folder, which may be still to come, or hub name.
    """
    if not is_hub_id(checkpoint) and not any(Path(checkpoint).glob("tokenizer*")):
        return ""
    from jinja2 import TemplateError
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        messages = [{"role": "user", "content": "Hi"}]
        return opening_at_end(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except (OSError, ValueError, TemplateError):  # not at the hub, no network, no template, one for parts alone
        return ""
