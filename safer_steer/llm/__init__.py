"""The LLM client and what belongs to it."""

from safer_steer.llm.cache import ResponseCache
from safer_steer.llm.client import LLMClient
from safer_steer.llm.config import EndpointConfig
from safer_steer.llm.replies import CONTEXT_FULL, Reply, Structured

__all__ = ["CONTEXT_FULL", "EndpointConfig", "LLMClient", "Reply", "ResponseCache", "Structured"]
