"""Every private name of transformers that the engine touches, in one place (tried on 5.17 and 5.23).

* `capture_outputs`, `merge_with_config_defaults`: the decorators of every stock `forward`; the reduced one wears them
  too, so that `output_hidden_states`, `use_cache` defaults and `return_dict` keep their meaning.
* `create_causal_mask(layer_idx=...)`: sizes the mask by one layer's cache, for caches whose layers differ in length.
"""

from __future__ import annotations

from transformers.masking_utils import create_causal_mask
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

__all__ = ["capture_outputs", "create_causal_mask", "merge_with_config_defaults"]
