"""Runs evaluations and grids of them, stores their answers and resumes after an interruption."""
