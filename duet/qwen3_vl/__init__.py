"""Qwen3-VL (dense): checkpoints and processor. The adapter and the prompts are shared by all Qwen-VL models.

See `duet/backbones/qwen_sides.py` and `duet/backbones/qwen_asking.py`. New in Qwen3-VL: DeepStack features are a field
of `VisionStates`, edited along with the others and added after the first layers; queries and keys are normalised when
they are read for ranking; timestamps between frames are words of the prompt.
"""
