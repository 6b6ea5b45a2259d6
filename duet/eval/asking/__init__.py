"""Puts questions to a model: prompts, batches and the answering itself."""
