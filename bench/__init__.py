"""Measurements of what the documentation claims; each is one module."""
