"""The paper in miniature: every cell of its tables trained and evaluated over seeds, and a verdict on each claim."""
