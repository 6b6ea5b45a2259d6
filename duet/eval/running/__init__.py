"""Runs evaluations and grids of them, keeps their answers on disk and goes on after an interruption."""
