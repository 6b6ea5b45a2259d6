"""Makes the small world's data: pictures and conversations to train on, and the held-out sets of six benchmarks.

    python -m playground.mini.generate train --count 40000
    python -m playground.mini.generate eval --count 240
    python -m playground.mini.generate videos --count 180
    python -m playground.mini.generate train --world hops --count 16000
    python -m playground.mini.generate eval --world hops

`train` fills playground/data/mini/train (images/, a JSON file per stage, watch.json), `eval` playground/data/mini/eval
(pope/, gqa/, textvqa/, MME/, scienceqa/, seed_bench/), `videos` playground/data/mini/videos (GPT_Zero_Shot_QA/ with the
three video benchmarks; needs PyAV). `--world hops` is the second world: its own training files, and held-out questions
in GQA's format.
The same seed and count give the same bytes. Training and evaluation draw from different splits of the random streams.
The sha256 over all files, sorted by path, is written to `data_hash.txt` and printed.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from pathlib import Path

from . import hops
from .clips import draw_clip, noise_clip
from .conversations import caption_row, hops_row, question_row
from .draw import draw, noise
from .eval_sets import WRITERS, Picture, save_picture, write_hops, write_json
from .hops_world import draw_textured, sample_full_scene
from .regions import region_row
from .watch import watch_hops, watch_rows
from .world import rng, sample_scene

ROOT = Path("playground/data/mini")
HOPS_ROOT = Path("playground/data/mini_hops")


def write_train(root: Path, count: int, seed: int, watch: int = 84) -> None:
    """`count` pictures each with a caption, a region and a question row; `watch` held-out questions per task.

    `mixed.json` has the region rows of three in five pictures and the question rows of the others.
    """
    captions, regions, questions = [], [], []
    for index in range(count):
        random = rng(seed, "train", index)
        scene = sample_scene(random)
        name = f"{index:06d}"
        image = f"{name[:3]}/{name}.png"
        save_picture(draw(scene), root / "images" / image)
        captions.append(caption_row(name, image, scene))
        questions.append(question_row(name, image, scene, random))
        regions.append(region_row(name, image, scene, rng(seed, "regions", index)))
    write_json(root / "pretrain.json", captions)
    write_json(root / "regions.json", regions)
    write_json(root / "finetune.json", questions)
    write_json(root / "mixed.json", [(regions if index % 5 < 3 else questions)[index] for index in range(count)])
    rows = []
    for scene, record in watch_rows(seed, watch):
        rows.append(record)
        if scene is not None:
            save_picture(draw(scene), root / "images" / str(record["image"]))
    write_json(root / "watch.json", rows)


def write_hops_train(root: Path, count: int, seed: int, watch: int = 416) -> None:
    """The hops world: `short.json` begins with short walks, captions and regions; `full.json` has mostly long ones."""
    short, full = [], []
    for index in range(count):
        random = rng(seed, "hops", index)
        scene = sample_full_scene(random)
        name = f"{index:06d}"
        image = f"{name[:3]}/{name}.png"
        save_picture(draw_textured(scene), root / "images" / image)
        easy = hops_row(name, image, scene, random, hops.SHORT)
        hard = hops_row(name, image, scene, random, hops.FULL)
        plain = (caption_row(name, image, scene), region_row(name, image, scene, random), easy, easy, easy)
        short.append(plain[index % 5])
        full.append(plain[index // 8 % 3] if index % 8 == 0 else hard)
    write_json(root / "short.json", short)
    write_json(root / "full.json", full)
    rows = list(watch_hops(seed, watch))
    for scene, record in rows:
        save_picture(draw_textured(scene), root / "images" / str(record["image"]))
    write_json(root / "watch.json", [record for _, record in rows])


def write_eval(root: Path, count: int, seed: int, picture: Picture = draw) -> None:
    """The six held-out benchmarks, about `count` questions each, under `root`."""
    for name, write in WRITERS.items():
        write(root / name, count, seed, picture)


def write_videos(root: Path, count: int, seed: int, blind: bool) -> None:
    """The three video benchmarks, `count` questions each, under `root`; with noise instead of clips if `blind`."""
    from .video_sets import BENCHMARKS, write_video_set  # needs PyAV

    for name in BENCHMARKS:
        write_video_set(root, name, count, seed, noise_clip if blind else draw_clip)


def data_hash(root: Path) -> str:
    """sha256 over every file's relative path and contents, sorted by path."""
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path.name != "data_hash.txt"):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("train", "eval", "videos"))
    parser.add_argument("--count", type=int, help="pictures to train on (40000), or questions per benchmark (240)")
    parser.add_argument("--world", choices=("first", "hops"), default="first", help="the second has harder questions")
    parser.add_argument("--output", type=Path, help=f"parent folder of the parts (default: {ROOT}; {HOPS_ROOT})")
    parser.add_argument("--noise", action="store_true", help="eval: the same questions with noise instead of pictures")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    second = arguments.world == "hops"
    root = (arguments.output or (HOPS_ROOT if second else ROOT)) / arguments.part
    if root.exists():
        shutil.rmtree(root)
    if arguments.part == "train":
        (write_hops_train if second else write_train)(root, arguments.count or 40000, arguments.seed)
    elif arguments.part == "videos":
        write_videos(root, arguments.count or 180, arguments.seed, arguments.noise)
    elif second:
        picture = noise if arguments.noise else draw_textured
        write_hops(root / "gqa", arguments.count or 1050, arguments.seed, picture)
    else:
        write_eval(root, arguments.count or 240, arguments.seed, noise if arguments.noise else draw)
    digest = data_hash(root)
    (root / "data_hash.txt").write_text(digest + "\n")
    sys.stdout.write(f"{root}: sha256 {digest}\n")


if __name__ == "__main__":
    main()
