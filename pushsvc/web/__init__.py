"""The HTTP surface: the only request handlers."""
