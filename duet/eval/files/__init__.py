"""The files of every benchmark: what they are, where they come from, and whether they are complete."""
