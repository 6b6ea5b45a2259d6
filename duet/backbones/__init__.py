"""Towers and text models shared by several adapters (CLIP, LLaMA-like, Qwen)."""
