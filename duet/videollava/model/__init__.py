"""Checkpoints of Video-LLaVA: read either layout, build a stock `VideoLlavaForConditionalGeneration`."""
