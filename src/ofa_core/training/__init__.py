"""Fine-tuning: what a step learns from, the loss of the original, and a loop that can be stopped at any moment."""
