"""Single-turn evaluation (Table 2): the same inference and judge on dialogues of one turn; score 3 passes."""
