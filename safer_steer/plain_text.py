"""Text stays text: the spelling of a model's special tokens inside a message is broken by a space.

Chat templates and servers put markup (message ends, picture places) and text into one string, and tokenizers read a
special token wherever it is spelled. So `<|im_end|>` in a text becomes `< |im_end|>` before any template sees it, the
same in every stage: calls to models, SFT, GRPO and exports. Added tokens that count as ordinary words (`<think>`) stay.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tekken.json")


def as_plain_text(text: str, names: Iterable[str]) -> str:
    """The text with the spelling of special tokens broken by a space after its first character.

    A special token of one character, and half surrogate pairs, which JSON can hold and no tokenizer takes, become "?".

    Args:
        text: any text.
        names: spellings of special tokens, see `names_of_tokenizer` and `names_of_checkpoint`.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    ordered = sorted(names, key=lambda name: (-len(name), name))
    while found := next((name for name in ordered if name in text), None):  # again: a break may spell another one
        text = text.replace(found, f"{found[0]} {found[1:]}" if len(found) > 1 else _stand_in(ordered))
    return text


def _stand_in(names: Iterable[str]) -> str:
    return next(sign for sign in "?_\ufffd" if sign not in names)


def plain_messages(messages: list[dict[str, Any]], names: Iterable[str]) -> list[dict[str, Any]]:
    """Chat messages whose texts, those next to pictures too, are plain."""
    return [message | {"content": _plain_content(message.get("content"), names)} for message in messages]


def names_of_tokenizer(tokenizer: Any) -> frozenset[str]:
    """Spellings of the special tokens of a transformers tokenizer."""
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    return _usable([*tokenizer.all_special_tokens, *added])


@lru_cache(maxsize=64)
def names_of_checkpoint(where: str) -> frozenset[str] | None:
    """Spellings of the special tokens of a checkpoint's tokenizer, from its files; imports no engine.

    Args:
        where: a folder, or a Hugging Face hub id, which is looked up in the local cache and then at the hub.

    Returns:
        None when it has no tokenizer files.
    """
    names: list[str] = []
    files = [path for path in map(_files_of(where), FILES) if path is not None]
    for path in files:
        names += _names_in(json.loads(path.read_text(encoding="utf-8")))
    return _usable(names) if files else None


def _plain_content(content: Any, names: Iterable[str]) -> Any:
    if isinstance(content, str):
        return as_plain_text(content, names)
    if not isinstance(content, list):
        return content
    parts: list[dict[str, Any]] = []
    said = ""  # since the last picture: templates put parts side by side, so that two may spell a token together
    for part in content:
        if isinstance(text := part.get("text"), str):
            text = as_plain_text(text, names)
            if as_plain_text(said + text, names) != said + text:
                text = f" {text}"
            part, said = part | {"text": text}, said + text
        else:
            said = ""
        parts.append(part)
    return parts


def _usable(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if name.strip())  # a new line may be special, and is in every text


def _files_of(where: str) -> Any:
    """A function: name of a file -> its path in a folder or at the hub, None where it is not."""
    if Path(where).is_dir():
        return lambda name: path if (path := Path(where, name)).is_file() else None

    def from_hub(name: str) -> Path | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        for offline in (True, False):
            try:
                return Path(hf_hub_download(where, name, local_files_only=offline))
            except (HfHubHTTPError, HFValidationError, OSError):  # OSError: not in the cache, or no network
                continue
        return None

    return from_hub


def _names_in(data: Any) -> list[str]:
    """Special tokens of one tokenizer file: `{"content", "special": true}` at any depth, named and additional ones."""
    if not isinstance(data, dict):
        return []
    vocabulary = [*(data.get("added_tokens") or []), *(data.get("added_tokens_decoder") or {}).values()]
    names = [token["content"] for token in vocabulary if token.get("special")]
    names += [token["token_str"] for token in data.get("special_tokens") or [] if isinstance(token, dict)]
    for key, value in data.items():
        if key.endswith("_token") or key in ("additional_special_tokens", "extra_special_tokens"):
            several = value.values() if isinstance(value, dict) and "content" not in value else value
            names += map(_spelling, several if not isinstance(several, str | dict | bool | None) else [several])
    return names


def _spelling(token: Any) -> str:
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else ""
