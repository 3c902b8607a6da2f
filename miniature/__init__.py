"""A laptop-sized, harmless world where the whole method runs for real: seeds, an embedded teacher, a tiny student."""
