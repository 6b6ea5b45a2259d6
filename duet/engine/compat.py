"""Every private name of transformers that the project touches, in one place (tried on 5.17 and 5.23).

* `capture_outputs`, `merge_with_config_defaults`: the decorators of every stock `forward`; the reduced one wears them
  too, so that `output_hidden_states`, `use_cache` defaults and `return_dict` keep their meaning.
* `create_causal_mask(layer_idx=...)`: sizes the mask by one layer's cache, for caches whose layers differ in length.
* `_get_num_multimodal_tokens`: how many placeholders a processor will write, without opening a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers.masking_utils import create_causal_mask
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

__all__ = ["capture_outputs", "count_image_tokens", "create_causal_mask", "merge_with_config_defaults"]


def count_image_tokens(processor: Any, sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Placeholders that a processor makes of each picture of `(height, width)` pixels."""
    return processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"] if sizes else []
