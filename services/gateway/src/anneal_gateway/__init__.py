"""The only door: the API in, the model calls out, and the limits on both."""
