"""Benchmarks of speed and memory: `python benchmarks/prefill.py --help`. Results are in `docs/speed.md`."""
