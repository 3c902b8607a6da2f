"""Stages I and II: single-turn seeds become multi-turn dialogues, bootstrapped, filtered, and split into STEER."""
