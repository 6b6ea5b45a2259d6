"""Checkpoints of LLaVA-1.5: both layouts in, a stock `LlavaForConditionalGeneration` out."""
