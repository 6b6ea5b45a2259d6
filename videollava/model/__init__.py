"""Checkpoints of Video-LLaVA: both layouts in, a stock `VideoLlavaForConditionalGeneration` out."""
