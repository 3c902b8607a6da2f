"""Training: `sft` (TRL) and `grpo` (verl)."""
