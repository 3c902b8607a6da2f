"""What the student talks to during a rollout."""
