"""Stage II, synthetic bootstrapping (Sec. 4.3): the red-blue loop, its scores, and the keep rule."""
