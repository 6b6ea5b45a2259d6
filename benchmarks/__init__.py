"""Speed and memory, measured: `python benchmarks/prefill.py --help`. What came out is in `docs/speed.md`."""
