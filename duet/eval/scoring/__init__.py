"""Decides on answers: prediction files, pairing by name, the frame of every benchmark, soft accuracy."""
