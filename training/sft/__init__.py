"""Supervised fine-tuning (Sec. 4.3, Eq. 16): TRL's `SFTTrainer` with our own encoding: loss on answers only."""
