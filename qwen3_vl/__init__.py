"""Qwen3-VL (dense): checkpoints and processor. Both sides and the prompts are those of all Qwen-VL models.

See `duet/backbones/qwen_sides.py` and `qwen_asking.py` there. What is new in Qwen3-VL is met where it belongs:
DeepStack features are a field of `VisionStates` that the engine edits along and adds after the first layers; queries
and keys are normed where they are read for ranking; times between frames are words of the prompt.
"""
