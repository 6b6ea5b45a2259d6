"""The small world: a seeded picture generator, its questions, and a LLaVA small enough to train on two CPU cores."""
