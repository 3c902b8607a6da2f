"""Assembly of STEER-SFT, STEER-RL and STEER-Bench out of the dialogues of Stages I and II."""
