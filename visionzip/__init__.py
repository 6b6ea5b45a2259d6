"""Name of the paper's README; the code of stage 1 is `duet/visionzip/`."""

from duet.visionzip import visionzip, visionzip_video

__all__ = ["visionzip", "visionzip_video"]
