"""The HTTP service: one model, asked by many, whose requests are computed together."""
