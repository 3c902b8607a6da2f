"""The LLM client and what belongs to it."""

from safer_steer.llm.cache import ResponseCache
from safer_steer.llm.client import CONTEXT_FULL, LLMClient, Reply, Structured
from safer_steer.llm.config import EndpointConfig

__all__ = ["CONTEXT_FULL", "EndpointConfig", "LLMClient", "Reply", "ResponseCache", "Structured"]
