"""TGIF-QA: the 13691 FrameQA test questions on GIFs, which have to be converted to mp4 (arXiv 1704.04497).

    {"video_name": "tumblr_ni06hc76UJ1u639x2o1_500", "question_id": "FRAMEQA15261", "question": "what is skidding ...?"}

Files, prompt and metric are those of `duet.eval.benchmarks.video_qa`.
"""

from __future__ import annotations

from duet.eval.benchmarks.video_qa import VideoQa


class Tgif(VideoQa):
    """Names and folders."""

    name = "tgif"
    folder = "TGIF_Zero_Shot_QA"
    videos = "mp4"
