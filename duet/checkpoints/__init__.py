"""Checkpoints of every family: folders and hub ids, tensors by name, LoRA parts, strict assembly of a stock model."""
