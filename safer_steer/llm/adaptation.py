"""Requests fitted to what an endpoint takes: a parameter it refuses is left out or replaced, remembered for the model,
and named in the record; an answer limit that does not fit is changed.

A refusal is known by the parameter's name in the error, whatever its wording and status; it is believed only when the
request without the parameter gets an answer.
"""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from safer_steer.llm.config import EndpointConfig
from safer_steer.llm.failures import CallFailure

MIN_ANSWER = 16  # tokens; with less room the context is full
LONGER = 4  # times the tokens for an answer that was cut before it was one
OTHER_TROUBLE = (401, 402, 403, 408, 409, 429)  # keys, money, time and load: no parameter's fault
FIRST = ("response_format", "max_completion_tokens", "max_tokens", "top_p", "seed", "temperature")
NEVER = ("model", "messages")
OTHER_NAMES = {
    "response_format": (
        *("json_schema", "json_object", "json_mode", "json_output", "structured_output", "response_schema"),
        *("response_mime_type", "guided_json", "guided_decoding", "grammar", "xgrammar"),
    ),
    "max_tokens": ("max_new_tokens", "max_output_tokens"),
}
_CONTEXT = re.compile(
    r"context.?(?:length|window|limit|size)|maximum (?:context|model length)|max_model_len|input token count|"
    r"too many (?:input )?tokens|(?:prompt|input|messages?|text) (?:is|are) too long|"
    r"(?:input|prompt) (?:length|tokens?)\W+(?:\d+ )?exceeds?|prompt exceeds max|range of input length",
    re.IGNORECASE,
)
_SEPARATOR = "[,_'’ \u00a0\u202f]"  # of thousands
_MOST = re.compile(
    rf"(?:at most|less than or equal to|<=|\[\d+, ?)\s*((?>\d{{1,3}}(?:{_SEPARATOR}\d{{3}})+(?!\d)|\d+))"
    r"(?!\w|[.,_'’]\d|\s?[km]\b)",  # a number that is not read to its end is none
    re.IGNORECASE,
)
_ROOM = re.compile(r"context length is (\d+).*?(\d+) (?:input tokens|(?:tokens )?in the messages)", re.I | re.S)
_FILTER_CODES = ("content_filter", "content_policy_violation", "data_inspection_failed", "invalid_prompt")
_FILTERED = re.compile(
    r"content (?:management )?policy|content.?filter|content exists risk|moderation|sensitive.?content|敏感内容|"
    r"inappropriate content|(?:input|prompt|content|text|messages?|request) (?:was|were|is|has been) flagged",
    re.IGNORECASE,
)
_INSTRUCTION = "Answer with exactly one JSON object that fits this JSON schema, and nothing else:\n"


def is_context_full(failure: CallFailure) -> bool:
    """The conversation and the answer asked for do not fit the model's context."""
    return failure.code == "context_length_exceeded" or bool(_CONTEXT.search(failure.message))


def is_filtered(failure: CallFailure) -> bool:
    """A provider's content filter refused the prompt with an error."""
    final = 400 <= (failure.status or 0) < 500 and failure.status not in (401, 402, 404, 429)
    said = final and _FILTERED.search(f"{failure.code} {failure.message}")
    return failure.code in _FILTER_CODES or bool(said)


@dataclass(frozen=True)
class Fit:
    """How requests are changed for a model.

    Attributes:
        without: parameters that are left out; `max_tokens` becomes `max_completion_tokens`.
        structured: how a JSON schema is asked for.
        most_tokens: the longest answer the model gives, in tokens, where an error said so.
    """

    without: frozenset[str] = frozenset()
    structured: str = "schema"
    most_tokens: int | None = None

    def apply(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request as the model takes it."""
        fitted = dict(request)
        if "max_tokens" in self.without and "max_tokens" in fitted:
            fitted["max_completion_tokens"] = fitted.pop("max_tokens")
        if self.structured != "schema" and "json_schema" in fitted.get("response_format", {}):
            schema = fitted.pop("response_format")["json_schema"]["schema"]
            fitted["messages"] = _with_instruction(request["messages"], _INSTRUCTION + json.dumps(schema))
            if self.structured == "json_object":
                fitted["response_format"] = {"type": "json_object"}
        for name in ("max_tokens", "max_completion_tokens"):
            if self.most_tokens is not None and name in fitted:
                fitted[name] = min(fitted[name], self.most_tokens)
        return {name: value for name, value in fitted.items() if name not in self.without}

    def joined(self, other: "Fit") -> "Fit":
        """What both leave out."""
        limits = [fit.most_tokens for fit in (self, other) if fit.most_tokens is not None]
        levels = ("schema", "json_object", "prompt")
        structured = max(self.structured, other.structured, key=levels.index)
        return Fit(self.without | other.without, structured, min(limits, default=None))


class Adaptation:
    """What one model's endpoints do not take: set in the config, or learnt."""

    def __init__(self, config: EndpointConfig):
        self._config = config
        self.fit = Fit(structured=config.structured)

    def confirm(self, fit: Fit) -> None:
        """Requests fitted like this are answered."""
        self.fit = self.fit.joined(fit)

    def record(self) -> dict[str, str]:
        """What was left out or replaced, and by whom, for the run's record."""
        config, fit = self._config, self.fit
        told: dict[str, str] = {str(name): "left out by the config" for name in sorted(config.leave_out)}
        if not config.pictures:
            told["pictures"] = "not shown, by the config"
        told |= dict.fromkeys(sorted(fit.without), "refused by the endpoint, left out")
        if "max_tokens" in fit.without and "max_completion_tokens" not in fit.without:
            told["max_tokens"] = "refused by the endpoint, sent as max_completion_tokens"
        if fit.most_tokens is not None:
            told["longest answer"] = f"{fit.most_tokens} tokens, limited by the endpoint"
        if fit.structured != "schema":
            instead = {"json_object": "json_object", "prompt": "the schema in the prompt"}[fit.structured]
            who = "by the config" if fit.structured == config.structured else "json_schema refused by the endpoint"
            told["response_format"] = f"{instead} ({who})"
        return told


class Trial:
    """One call's search for the parameter that an endpoint refuses."""

    def __init__(self, known: Fit):
        self.fit = self._before = known
        self._tried: set[tuple[str, Fit]] = set()
        self._last: _Complaint | None = None
        self._seen: set[str] = set()

    def next(self, sent: dict[str, Any], failure: CallFailure, last_try: bool) -> bool:
        """Reads an error.

        Args:
            sent: the request as it was sent.
            failure: the endpoint's answer to it.
            last_try: a server error counts at once; else only when it comes twice, since it may pass by itself.

        Returns:
            True when the error names a parameter: `fit` leaves it out, and the call is worth another try.
        """
        status = failure.status or 0
        if status < 400 or status in OTHER_TROUBLE:
            return False
        if status >= 500 and not last_try and failure.text not in self._seen:
            self._seen.add(failure.text)
            return False
        complaint = _Complaint.of(sent, failure)
        stays = self._last is not None and complaint.goes_on(self._last)
        if stays:
            base = self._before  # the last change was not it: undo it
        else:
            base, self._last = self.fit, complaint
        for change, fit in _changes(base, sent, failure):
            if (change, base) not in self._tried:
                self._tried.add((change, base))
                self._before, self.fit = base, fit
                return True
        return False


def names_parameter(sent: dict[str, Any], failure: CallFailure) -> bool:
    """Whether an error names a parameter of the request that could be left out."""
    return bool(_changes(Fit(), sent, failure))


@dataclass(frozen=True)
class _Complaint:
    """What an error is about: its words without numbers, as it may number itself. Of one that names the parameter, that
    alone; of one that holds the whole request, the likeliest parameters and the words that are no parameter.
    """

    names: frozenset[str]
    words: frozenset[str]

    @classmethod
    def of(cls, sent: dict[str, Any], failure: CallFailure) -> "_Complaint":
        ranks = _ranks(sent, failure)
        names = frozenset(name for name in ranks if ranks[name] == min(ranks.values()))
        words = frozenset(word for word in re.findall(r"\w+", failure.text) if not re.search(r"\d", word))
        if failure.parameter:
            return cls(names, frozenset())
        return cls(names, words.difference(sent, FIRST)) if words.issuperset(NEVER) else cls(frozenset(), words)

    def goes_on(self, first: "_Complaint") -> bool:
        """Whether this is, after a change, still what was complained of first."""
        names = self.names - {"max_completion_tokens"} or self.names  # a change may have put it into the request
        return names <= first.names and self.words == first.words


def _changes(fit: Fit, sent: dict[str, Any], failure: CallFailure) -> list[tuple[str, Fit]]:
    """What could be left out of a request after an error, likeliest first."""
    found: list[tuple[str, Fit]] = []
    ranks, most, owner = _ranks(sent, failure), _MOST.search(failure.text), _limited(sent, failure)
    for name in sorted(ranks, key=ranks.__getitem__):
        if name == "response_format" and sent[name].get("type") in ("json_schema", "json_object"):
            if sent[name]["type"] == "json_schema":
                found.append(("json_object", replace(fit, structured="json_object")))
            found.append(("prompt", replace(fit, structured="prompt")))
            continue
        limit = int(re.sub(_SEPARATOR, "", most[1])) if most and owner in (name, None) else 0
        if name.startswith("max_") and MIN_ANSWER <= limit < sent[name]:
            found.append((f"{name} <= {limit}", replace(fit, most_tokens=limit)))
        else:
            found.append((name, replace(fit, without=fit.without | {name})))
    return found


def _ranks(sent: dict[str, Any], failure: CallFailure) -> dict[str, tuple[bool, bool, int]]:
    """The parameters of a request that an error names -> their rank, the likeliest lowest: first the one that it gives
    as such, then the one before a limit, then those that it names most often, as it may hold the whole request.
    """
    if failure.parameter and re.split(r"\W", failure.parameter)[0] in NEVER:
        return {}
    given, owner, ranks = failure.parameter, _limited(sent, failure), dict[str, tuple[bool, bool, int]]()
    for name in _parameters(sent):
        if found := len(_places(f"{given} {failure.text}", name)):
            ranks[name] = not _places(given, name), name != owner, -found
    return ranks


def _parameters(sent: dict[str, Any]) -> list[str]:
    """The parameters of a request that may be changed, the likeliest to be refused first."""
    return [name for name in (*FIRST, *(key for key in sent if key not in FIRST)) if name in sent and name not in NEVER]


def _limited(sent: dict[str, Any], failure: CallFailure) -> str | None:
    """The parameter that an error names last before a limit."""
    most = _MOST.search(failure.text)
    if most is None:
        return None
    places = {name: _places(failure.text[: most.start()], name) for name in _parameters(sent)}
    return max((name for name in places if places[name]), key=lambda name: places[name][-1], default=None)


def _places(text: str, name: str) -> list[int]:
    """Where a text names a parameter, in any spelling: top_p, topP; json_schema, JSON schema."""
    spelt = "|".join(re.escape(word).replace("_", "[_ -]?") for word in (name, *OTHER_NAMES.get(name, ())))
    return [found.start() for found in re.finditer(rf"(?<![^\W_])(?:{spelt})s?(?![^\W_])", text, re.IGNORECASE)]


def shortened(request: dict[str, Any], failure: CallFailure) -> dict[str, Any] | None:
    """After a context error: the request with fewer tokens for the answer (the room that the error tells, else half),
    None when fewer than MIN_ANSWER are left.
    """
    wanted = request.get("max_tokens")
    if wanted is None or wanted <= MIN_ANSWER:
        return None
    told = _ROOM.search(failure.message)
    room = int(told[1]) - int(told[2]) if told else wanted
    fewer = room if room < wanted else wanted // 2
    return request | {"max_tokens": fewer} if fewer >= MIN_ANSWER else None


def lengthened(request: dict[str, Any]) -> dict[str, Any]:
    """The request with a larger budget for its answer, for one that was cut; the same where it has no limit."""
    limits = [name for name in ("max_tokens", "max_completion_tokens") if isinstance(request.get(name), int)]
    return request | {name: LONGER * request[name] for name in limits}


def _with_instruction(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The messages with a text at the end of the last one, which is a user's."""
    last = messages[-1]
    content = last["content"]
    more = f"{content}\n\n{text}" if isinstance(content, str) else [*content, {"type": "text", "text": text}]
    return [*messages[:-1], last | {"content": more}]
