"""Attribute names of towers and text models that several adapters share (CLIP, LLaMA-like)."""
