"""The page: a model, and a second one beside it, tried in a browser."""
