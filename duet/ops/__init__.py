"""Pure tensor functions, batched, without a Python loop over rows. They know no model and no method."""
