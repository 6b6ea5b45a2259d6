"""The loader under the original repository's name; the code is `duet/llava/model/builder.py`."""

from duet.llava.model.builder import load_pretrained_model

__all__ = ["load_pretrained_model"]
