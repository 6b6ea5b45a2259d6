"""Lets the CUDA build of torchvision import beside torch for CPUs: declares the operators that its import looks for.

`scripts/env/own.sh` copies this file into the environment's site-packages; a `.pth` file imports it. Nothing happens
until torchvision is imported.
"""

from __future__ import annotations

import sys
from typing import Any


class _Finder:
    """Sees the first import of torchvision, then leaves."""

    library: Any = None

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Find nothing: the other finders do."""
        if name == "torchvision" and self in sys.meta_path:
            sys.meta_path.remove(self)
            import torch

            # kept alive, or the operators would go with it
            _Finder.library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, _Finder())
