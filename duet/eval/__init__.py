"""Evaluation: benchmarks as files, prediction files of any origin, scores that equal the official scorers'."""
