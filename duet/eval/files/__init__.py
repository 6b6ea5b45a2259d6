"""The files of every benchmark: which there are, where they come from, and whether they are all right."""
