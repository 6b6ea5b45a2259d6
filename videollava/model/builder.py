"""The loader under the original repository's name; the code is `duet/videollava/model/builder.py`."""

from duet.videollava.model.builder import load_pretrained_model

__all__ = ["load_pretrained_model"]
