"""What a role will have to do, before a run: calls and tokens, from the prompts and a few assumed lengths.

The assumptions are the constants below; the answers' lengths depend on the models, so expect the real cost within a
factor of two, and see `run.json` for what it was.
"""

from dataclasses import dataclass

from safer_steer.prompts import Prompt

# Tokens. A picture of a million pixels has about 1,300 for Qwen2.5-VL and 765 for GPT-4.1.
PICTURE, USER_TURN, ANSWER, SCORES = 1000, 35, 200, 90
CHARACTERS_A_TOKEN = 4


@dataclass
class Load:
    """What a role has to do."""

    calls: float = 0.0
    tokens_in: float = 0.0
    tokens_out: float = 0.0

    def add(self, calls: float, tokens_in: float, tokens_out: float) -> None:
        """Adds so many calls with so many tokens each."""
        self.calls += calls
        self.tokens_in += calls * tokens_in
        self.tokens_out += calls * tokens_out

    def add_turns(self, dialogues: float, turns: int, fixed: int, out: int) -> None:
        """Adds the calls of whole conversations: each turn's prompt holds the turns before it."""
        for turn in range(1, turns + 1):
            self.add(dialogues, fixed + turn * USER_TURN + (turn - 1) * ANSWER, out)

    def scaled(self, factor: float) -> "Load":
        """So many times as much."""
        return Load(self.calls * factor, self.tokens_in * factor, self.tokens_out * factor)


def prompt_tokens(prompt: Prompt) -> int:
    """About how many tokens a template has, with what is the same in every rendering."""
    return len(prompt.source + "".join(prompt.given.values())) // CHARACTERS_A_TOKEN
