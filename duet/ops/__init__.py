"""Pure, batched tensor functions without Python loops over rows, independent of models and methods."""
