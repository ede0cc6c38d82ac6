"""Horizontally scaled push notifications with an acknowledged, durable mailbox per user."""

__version__ = "0.1.0"
