"""A video of three seconds whose frames fade from black to grey."""

from __future__ import annotations

from pathlib import Path

import numpy as np

HEIGHT, WIDTH, FRAMES, RATE = 48, 64, 12, 4


def write_video(path: Path) -> Path:
    """Write it."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            grey = np.full((HEIGHT, WIDTH, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return path
