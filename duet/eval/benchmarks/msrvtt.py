"""MSRVTT-QA: 72821 test questions on 2990 clips (Xu et al., ACM Multimedia 2017).

    {"video_name": "video7010", "question_id": "0", "question": "what is skidding and turning ... ?"}

Files, prompt and metric are those of `duet.eval.benchmarks.video_qa`.
"""

from __future__ import annotations

from duet.eval.benchmarks.video_qa import VideoQa


class Msrvtt(VideoQa):
    """Names and folders."""

    name = "msrvtt"
    folder = "MSRVTT_Zero_Shot_QA"
    videos = "videos/all"
