"""Video-LLaVA's processor without torchvision: `processor(text=..., images=..., videos=...) -> BatchFeature`.

transformers' own `VideoLlavaProcessor` needs torchvision for videos. This one processes pictures and frames with the
PIL CLIP processor (shorter side 224, centre crop, CLIP's mean and standard deviation, no random flip) and writes the
same placeholders: 256 x `<image>`, 257 x `<video>` per frame. Outputs are named as in the installed transformers. To
read frames from a file: `duet.data.video.read_frames`.

The original resizes frames without antialiasing and flips half of the videos even at inference; transformers and this
processor do neither.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoTokenizer, BatchFeature, VideoLlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from duet.checkpoints.files import CheckpointError, read_json
from duet.checkpoints.sanity import check_pixels
from duet.errors import UserError
from duet.files import blame
from duet.text.placeholders import IMAGE, VIDEO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase, VideoLlavaConfig

#: Files that may hold a checkpoint's pixel settings.
SETTINGS = ("preprocessor_config.json", "image_processor_config.json")


def picture_name() -> str:
    """The forward's argument for pictures; transformers renamed it."""
    known = inspect.signature(VideoLlavaForConditionalGeneration.forward).parameters
    return "pixel_values" if "pixel_values" in known else "pixel_values_images"


class FrameProcessor:
    """Makes pixels of videos: `processor["video"](frames)["pixel_values_videos"]`, `[videos, frames, 3, H, W]`."""

    def __init__(self, image_processor: CLIPImageProcessorPil) -> None:
        self.image_processor = image_processor

    def __call__(self, videos: Any, return_tensors: str = "pt") -> BatchFeature:
        """Preprocess one video or several.

        Args:
            videos: frames `[T, H, W, 3]` uint8 or a list of RGB pictures, or a list of these.
            return_tensors: only `pt`.

        Raises:
            UserError: videos without frames, or with different numbers of frames.
        """
        clips = [list(clip) for clip in list_videos(videos)]
        counts = sorted({len(clip) for clip in clips})
        if len(counts) != 1 or counts[0] == 0:
            raise UserError(f"videos of a batch need the same number of frames, at least one; got {counts}")
        pixels = [self.image_processor(clip, return_tensors="pt")["pixel_values"] for clip in clips]
        return BatchFeature({"pixel_values_videos": torch.stack(pixels)})


def list_videos(videos: Any) -> list[Any]:
    """A list of videos from one or several: arrays `[T, H, W, 3]`, or lists of pictures or `[H, W, 3]` arrays."""
    if getattr(videos, "ndim", None) == 4:
        return [videos]
    videos = list(videos)
    first = videos[0] if videos else None
    if getattr(first, "ndim", None) == 4 or isinstance(first, (list, tuple)):
        return videos
    return [videos]


class VideoLlavaProcessorPil:
    """See the module docstring.

    Args:
        tokenizer: with both placeholder tokens, padding on the left.
        image_processor: for pictures and frames.
        image_tokens: placeholders per picture.
        frame_tokens: placeholders per frame.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, image_processor: CLIPImageProcessorPil, image_tokens: int,
        frame_tokens: int,
    ) -> None:  # fmt: skip
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.video_processor = FrameProcessor(image_processor)
        self.image_tokens, self.frame_tokens = image_tokens, frame_tokens
        self.image_token, self.video_token = IMAGE, VIDEO
        vocabulary = tokenizer.get_vocab()
        self.image_token_id, self.video_token_id = vocabulary.get(IMAGE), vocabulary.get(VIDEO)

    def __call__(
        self,
        text: str | Sequence[str],
        images: Any = None,
        videos: Any = None,
        return_tensors: str = "pt",
        **tokenizing: Any,
    ) -> BatchFeature:
        """Tokens and pixels of a batch.

        Args:
            text: one prompt or several, with a placeholder for each picture and video.
            images: one RGB picture or a list, in the order of their placeholders over all prompts.
            videos: see `FrameProcessor`; all with the same number of frames.
            return_tensors: only `pt`.
            tokenizing: arguments for the tokenizer, e.g. `padding=True`.

        Raises:
            UserError: placeholders do not match the pictures or videos.
        """
        texts = [text] if isinstance(text, str) else list(text)
        found: dict[str, Tensor] = {}
        sizes: dict[str, tuple[int, int]] = {IMAGE: (0, 0), VIDEO: (0, 0)}
        if images is not None:
            pixels = self.image_processor(images, return_tensors="pt")["pixel_values"]
            found[picture_name()] = pixels
            sizes[IMAGE] = (len(pixels), self.image_tokens)
        if videos is not None:
            frames = self.video_processor(videos)["pixel_values_videos"]
            found["pixel_values_videos"] = frames
            sizes[VIDEO] = (len(frames), frames.shape[1] * self.frame_tokens)
        for token, (given, size) in sizes.items():
            asked = sum(prompt.count(token) for prompt in texts)
            if asked != given:
                raise UserError(f"the text has {asked} {token} placeholder(s) for {given}; write one for each")
            texts = [prompt.replace(token, token * size) for prompt in texts]
        tokens = self.tokenizer(texts, return_tensors="pt", **tokenizing)
        return BatchFeature({**tokens, **found})

    def __getitem__(self, kind: str) -> Any:
        """`processor["image"]`, `processor["video"]`: the two pixel processors by their names in the original."""
        return {"image": self.image_processor, "video": self.video_processor}[kind]

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """Text of token ids."""
        return self.tokenizer.decode(*args, **kwargs)

    def batch_decode(self, *args: Any, **kwargs: Any) -> Any:
        """Texts of several rows of token ids."""
        return self.tokenizer.batch_decode(*args, **kwargs)

    def save_pretrained(self, folder: str | Path) -> None:
        """Save tokenizer and pixel settings beside a model; transformers can read them, too."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)


def hf_processor(folder: Path, config: VideoLlavaConfig) -> VideoLlavaProcessorPil:
    """Processor of a Hugging Face checkpoint."""
    with blame(f"{folder} has no tokenizer", CheckpointError):
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
    file = next((folder / name for name in SETTINGS if (folder / name).exists()), None)
    if file is not None:
        settings = read_json(file)
    else:
        settings = read_json(folder / "processor_config.json").get("image_processor", {})
    with blame(f"the image processor's settings in {folder}", CheckpointError):
        pixels = CLIPImageProcessorPil.from_dict(settings)
    return _fit(tokenizer, pixels, config, folder)


def original_processor(
    tokenizer: PreTrainedTokenizerBase, config: VideoLlavaConfig, folder: Path
) -> VideoLlavaProcessorPil:
    """Processor of an original checkpoint: CLIP's pixels at the size of the towers."""
    vision: Any = config.vision_config
    side = vision.image_size
    pixels = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return _fit(tokenizer, pixels, config, folder)


def _fit(
    tokenizer: PreTrainedTokenizerBase, pixels: CLIPImageProcessorPil, config: VideoLlavaConfig, folder: Path
) -> VideoLlavaProcessorPil:
    """Build the processor and check that it matches the model."""
    vision: Any = config.vision_config
    check_pixels(pixels, folder, vision.image_size)
    patches = (vision.image_size // vision.patch_size) ** 2
    full = config.vision_feature_select_strategy == "full"
    processor = VideoLlavaProcessorPil(tokenizer, pixels, patches + full, patches + 1)
    for token, has, wants in (
        (IMAGE, processor.image_token_id, config.image_token_id),
        (VIDEO, processor.video_token_id, config.video_token_id),
    ):
        if has != wants:
            raise CheckpointError(f"the tokenizer's {token} is token {has}, config.json says {wants}")
    return processor
