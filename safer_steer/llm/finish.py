"""What a finish reason means: the one table of all that providers send. What is not in it is not an answer.

Sources: the APIs of OpenAI, Azure, Anthropic, Gemini and Vertex, Bedrock, Mistral, Cohere, DeepSeek, Qwen, GLM, ERNIE,
OpenRouter, vLLM, SGLang, TGI, llama.cpp, Ollama and LM Studio.
"""

import re
from enum import StrEnum
from typing import Any


class Ending(StrEnum):
    """How a completion ended.

    `answer` whole; `cut` at a length limit; `filtered` by the provider; `refused` by the model; `tool` it called a tool
    instead of answering; `failed` it is no answer, and another try may give one.
    """

    ANSWER = "answer"
    CUT = "cut"
    FILTERED = "filtered"
    REFUSED = "refused"
    TOOL = "tool"
    FAILED = "failed"


_BY_ENDING = {
    Ending.ANSWER: (
        *("stop", "stopped", "end_turn", "stop_sequence", "eos", "eos_token", "eos_found", "eog_token", "endoftext"),
        *("complete", "completed", "normal"),
    ),
    Ending.CUT: (
        *("length", "max_tokens", "max_output_tokens", "max_new_tokens", "max_length", "model_length", "token_limit"),
        *("max_context_length", "model_context_window_exceeded", "context_length_exceeded", "error_limit"),
        "repetition",  # vLLM: it went round in circles
    ),
    Ending.FILTERED: (
        *("content_filter", "content_filtered", "safety", "recitation", "blocklist", "prohibited_content", "spii"),
        *("image_safety", "image_prohibited_content", "image_recitation", "language", "sensitive", "error_toxic"),
        *("guardrail_intervened", "model_armor", "blocked"),
    ),
    Ending.REFUSED: ("refusal", "refused"),
    Ending.TOOL: (
        "tool_calls",
        "tool_call",
        "tool_use",
        "function_call",
        "unexpected_tool_call",
        "too_many_tool_calls",
    ),
    # Known, and no answer; so is every other one, null, "" and a missing one.
    Ending.FAILED: (
        *("error", "abort", "aborted", "cancelled", "canceled", "user_cancel", "timeout", "network_error", "load"),
        *(
            "unload",
            "pause_turn",
            "other",
            "unknown",
            "null",
            "finish_reason_unspecified",
            "insufficient_system_resource",
        ),
        *("malformed_function_call", "malformed_tool_call", "malformed_tool_use", "malformed_model_output"),
        *("malformed_response", "missing_thought_signature", "no_image", "image_other", "delegate", "overloaded"),
    ),
}
ENDINGS = {reason: ending for ending, reasons in _BY_ENDING.items() for reason in reasons}


def ending_of(choice: dict[str, Any]) -> Ending:
    """How a choice ended, by its finish reason, whatever its spelling: `MAX_TOKENS`, `endTurn`, `content-filter`,
    `content_filter: SAFETY`, `FinishReason.STOP` or `{"type": "stop"}`. An answer that ended well needs no explanation:
    `stop: upstream error` is none. Nor is a `stop` next to a `native_finish_reason`, the model's own provider's word
    (OpenRouter), that the table knows as another end; those that it does not know say nothing.
    """
    ending = _known(choice.get("finish_reason")) or Ending.FAILED
    native = _known(choice.get("native_finish_reason"))
    return native if native and ending == Ending.ANSWER else ending


def _known(reason: Any) -> Ending | None:
    if isinstance(reason, dict):  # SGLang's own form
        reason = reason.get("type")
    if not isinstance(reason, str):
        return None
    name, _, explanation = reason.partition(":")
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", re.sub(r"^\w*reason\.", "", name.strip(), flags=re.IGNORECASE))
    ending = ENDINGS.get(re.sub(r"[-\s]+", "_", snake).lower())
    return Ending.FAILED if explanation and ending == Ending.ANSWER else ending
