"""Checkpoints of LLaVA-1.5 and LLaVA-NeXT: read either layout, build the stock transformers model."""
