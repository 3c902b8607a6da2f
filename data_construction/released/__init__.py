"""The files that the paper's authors release, STEER-SFT, STEER-RL and STEER-Bench: into our rows, and back."""
