"""Pure parts of Stage III: rewards, TCSR, advantages, token accounting. No engine is imported here."""
