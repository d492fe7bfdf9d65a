"""Learning: preprocessing, conditions, tokens, models, the training loop and checkpoints."""
