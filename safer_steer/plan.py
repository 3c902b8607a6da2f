"""What a run would do, and what it will cost: printed by --dry-run, and again before the first call of a real run."""

from dataclasses import dataclass, field

from safer_steer.llm.config import EndpointConfig, require_keys
from safer_steer.load import Load


@dataclass(frozen=True)
class Plan:
    """What a run would do: lines to read, and an upper bound of each role's calls; priced where its endpoint is."""

    lines: list[str]
    loads: dict[str, Load] = field(default_factory=dict)
    endpoints: dict[str, EndpointConfig] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [f"  {line}" for line in self.lines]
        for role, load in self.loads.items():
            usd = self.endpoints[role].usd(load.tokens_in, load.tokens_out) if role in self.endpoints else None
            cost = "" if usd is None else f", about ${usd:,.2f}"
            tokens = f"about {load.tokens_in:,.0f} tokens in and {load.tokens_out:,.0f} out"
            rows.append(f"  calls of {role}: at most {load.calls:,.0f}, {tokens}{cost}")
        return "\n".join(rows)

    def announce(self) -> None:
        """Prints the plan before the first call.

        Raises:
            UserError: an endpoint of the plan asks for a key that is not there.
        """
        print(f"plan:\n{self}", flush=True)
        require_keys(self.endpoints)
