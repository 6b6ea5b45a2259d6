"""Training: recipe -> model, data, optional compression in the loop -> Hugging Face Trainer."""
