"""Which language a text is in, by py3langid (97 languages and more, its model is part of the package, no download)."""

from functools import lru_cache
from typing import Any

MIN_CONFIDENCE = 0.8  # below it, as for formulas and texts of a few words, the language counts as unknown


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # a second to load, and off by default

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def wrong_language(text: str, allowed: tuple[str, ...]) -> str | None:
    """The text's language (ISO 639-1) when it is surely none of `allowed`, else None; () allows any."""
    if not allowed:
        return None
    code, confidence = _identifier().classify(text)
    return code if code not in allowed and confidence >= MIN_CONFIDENCE else None
