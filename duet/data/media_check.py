"""Pictures and videos of rows, read by their headers or decoded in full.

A header tells a truncated download from a picture only if the damage is at its start; `deep` decodes everything, which
takes minutes per hundred thousand pictures and core.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from duet.data.parquet import picture_file
from duet.data.pictures import check_size, formats, open_picture
from duet.data.rows import IMAGE, DataError
from duet.data.video import UNKNOWN_FPS, check_reader, read_clip
from duet.files import blame, regular_file

#: EXIF tag of the orientation, and its values that swap width and height.
_ORIENTATION, _TURNED = 274, (5, 6, 7, 8)


@dataclass(frozen=True)
class Facts:
    """What a file's header says, or what is wrong with it.

    Attributes:
        height, width: in pixels, upright.
        seconds: of a video.
        fault: why the file cannot be used.
    """

    height: int = 0
    width: int = 0
    seconds: float = 0.0
    fault: str | None = None


def inspect(
    files: Iterable[tuple[str, Path]], deep: bool = False, workers: int = 8
) -> Mapping[tuple[str, Path], Facts]:
    """Facts of every file.

    Args:
        files: (placeholder, path); each is read once.
        deep: decode pictures, and some frames of videos from start to end.
        workers: threads.
    """
    distinct = list(dict.fromkeys(files))
    if any(kind != IMAGE for kind, _ in distinct):
        check_reader()
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda file: _facts(file[0], file[1], deep), distinct)
        return dict(zip(distinct, found, strict=True))


def _facts(kind: str, path: Path, deep: bool) -> Facts:
    try:
        return _picture(path, deep) if kind == IMAGE else _video(path, deep)
    except DataError as error:
        return Facts(fault=str(error))


def _picture(path: Path, deep: bool) -> Facts:
    if deep:
        image = open_picture(path)
        return Facts(image.height, image.width)
    file = picture_file(path)
    with blame(f"cannot read the picture {path}", DataError), Image.open(file, formats=formats()) as image:
        check_size(image, path)
        width, height = image.size
        # of a PNG it stands behind the pixels
        turned = image.format != "PNG" and image.getexif().get(_ORIENTATION) in _TURNED
    return Facts(width, height) if turned else Facts(height, width)


def _video(path: Path, deep: bool) -> Facts:
    if deep:
        clip = read_clip(path, lambda seconds: 8)
        return Facts(clip.frames.shape[1], clip.frames.shape[2], clip.total / clip.fps)
    import av

    regular_file(path, DataError, "video")
    with blame(f"{path} cannot be opened as a video", DataError), av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or UNKNOWN_FPS)
        seconds = (container.duration or 0) / av.time_base or stream.frames / rate
        return Facts(stream.height, stream.width, seconds)
