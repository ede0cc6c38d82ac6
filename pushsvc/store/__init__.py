"""The way to Redis."""
