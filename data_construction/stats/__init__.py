"""What a run made, in numbers: counts, the paper's Table 1 next to them, success of attacks, cost, a histogram."""
