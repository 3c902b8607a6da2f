"""The shared core of SaFeR-Steer: dialogue schema, verdicts, images, JSONL store, config, prompts, LLM client,
servers, runs.
"""

__version__ = "0.1.0"
