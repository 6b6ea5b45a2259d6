"""LLaVA's processors: a stock `LlavaProcessor` or `LlavaNextProcessor` with the PIL image processor, for one model.

Backends round pixels differently, so the PIL one is used everywhere. `pad` is the original's rule (LLaVA-1.5,
`image_aspect_ratio`): a square of the CLIP mean colour around the centred picture, then one resize. `crop` is CLIP's
rule: resize the shorter side, cut out the centre. `anyres` is LLaVA-NeXT's: the whole picture resized to a square, and
its tiles.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoProcessor, LlavaNextProcessor, LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from duet.checkpoints.files import CheckpointError, read_json
from duet.checkpoints.sanity import check_pixels
from duet.errors import UserError
from duet.files import blame
from duet.llava.prompts import IMAGE

if TYPE_CHECKING:
    from transformers import LlavaConfig, LlavaNextConfig, PreTrainedTokenizerBase

    Config = LlavaConfig | LlavaNextConfig
    Processor = LlavaProcessor | LlavaNextProcessor

#: By `model_type`.
PROCESSORS: dict[str, type[Processor]] = {"llava": LlavaProcessor, "llava_next": LlavaNextProcessor}
ASPECT_RATIOS = {"llava": ("pad", "crop"), "llava_next": ("anyres",)}


def original_processor(
    tokenizer: PreTrainedTokenizerBase, folders: list[Path], aspect_ratio: str, config: Config
) -> Processor:
    """Processor of an original checkpoint.

    Args:
        tokenizer: from `duet.checkpoints.original.read_tokenizer`.
        folders: where to look for preprocessor_config.json, in order; the tower's folder first, as the original does.
        aspect_ratio: `pad`, `crop` or `anyres`.
        config: of the model.
    """
    file = next((f / "preprocessor_config.json" for f in folders if (f / "preprocessor_config.json").exists()), None)
    if file is None:
        raise CheckpointError(f"no preprocessor_config.json of the vision tower in {' or '.join(map(str, folders))}")
    with blame(file, CheckpointError):
        image_processor = _image_processor(read_json(file), aspect_ratio, config)
    return _fit(PROCESSORS[config.model_type](image_processor, tokenizer, image_token=IMAGE), config, file.parent)


def hf_processor(folder: Path, aspect_ratio: str | None, config: Config) -> Processor:
    """Processor of a Hugging Face checkpoint; `aspect_ratio` None keeps what its files say."""
    kind = PROCESSORS[config.model_type]
    with blame(f"{folder} has no complete {kind.__name__}", CheckpointError):
        processor = AutoProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
    if not isinstance(processor, kind):
        raise CheckpointError(f"{folder} has a {type(processor).__name__} instead of a {kind.__name__}")
    if aspect_ratio is not None:
        processor.image_processor = _image_processor(processor.image_processor.to_dict(), aspect_ratio, config)
    return _fit(processor, config, folder)


def _image_processor(settings: dict[str, Any], aspect_ratio: str, config: Config) -> Any:
    choices = ASPECT_RATIOS[config.model_type]
    if aspect_ratio not in choices:
        raise UserError(f"image_aspect_ratio is {aspect_ratio!r}; choose {' or '.join(choices)}")
    if aspect_ratio == "anyres":
        return LlavaNextImageProcessorPil.from_dict({**settings, "do_pad": True, "do_convert_rgb": True})
    return LlavaImageProcessorPil.from_dict({**settings, "do_pad": aspect_ratio == "pad", "do_convert_rgb": True})


def _fit(processor: Processor, config: Config, folder: Path) -> Processor:
    """Make the processor write as many placeholders as the model has visual tokens per picture."""
    vision: Any = config.vision_config
    processor.patch_size = vision.patch_size
    processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    if vision.model_type == "clip_vision_model":
        processor.num_additional_image_tokens = 1  # CLS
    if config.model_type == "llava_next":
        processor.image_processor.image_grid_pinpoints = config.image_grid_pinpoints
    check_pixels(processor.image_processor, folder, vision.image_size)
    if processor.image_token_id != config.image_token_id:
        raise CheckpointError(
            f"the tokenizer's {processor.image_token} is token {processor.image_token_id}, "
            f"config.json says image_token_index {config.image_token_id}"
        )
    return processor
