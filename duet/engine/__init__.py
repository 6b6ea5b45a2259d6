"""Attach compression to a stock model and run it: one visible decoder loop, one vision path, one cache."""
