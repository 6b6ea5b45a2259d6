"""Name of the original repository's package of models; `builder` has its loader."""
