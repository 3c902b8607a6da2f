"""Multi-turn evaluation on STEER-Bench (Sec. 5, App. B): inference -> judge -> aggregate and survival."""
