"""`duet score`: score a prediction file on one of nine benchmarks (see `duet.eval.score`)."""

from duet.eval.score import EXAMPLES, SUMMARY, add_arguments, run

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "run"]
