"""Training data: LLaVA conversation files -> token ids, labels and pictures."""
