"""Which text tokens vote. No download and no work at import."""
