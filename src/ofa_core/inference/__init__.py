"""The same network, faster: what is done for speed, beside the plain model."""
