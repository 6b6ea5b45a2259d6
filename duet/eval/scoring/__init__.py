"""Scores answers: prediction files, pairing by name, the base of every benchmark, soft accuracy."""
