"""Name of the paper's README; the code of stage 2 is `duet/pyramiddrop/`."""

from duet.pyramiddrop.duet_prune import DuetPrune
from duet.pyramiddrop.pyramiddrop import PyramidDrop

__all__ = ["DuetPrune", "PyramidDrop"]
