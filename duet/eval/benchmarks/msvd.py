"""MSVD-QA: 13157 test questions on 520 YouTube clips (Xu et al., ACM Multimedia 2017).

    {"video_name": "jfrrO5K_vKM_55_65", "question_id": "v_jfrrO5K_vKM_55_65_0", "question": "who opened the box ...?"}

Files, prompt and metric are those of `duet.eval.benchmarks.video_qa`.
"""

from __future__ import annotations

from duet.eval.benchmarks.video_qa import VideoQa


class Msvd(VideoQa):
    """Names and folders."""

    name = "msvd"
    folder = "MSVD_Zero_Shot_QA"
    videos = "videos"
