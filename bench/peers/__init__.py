"""The servers that pushsvc is compared with, beside it in one run."""
