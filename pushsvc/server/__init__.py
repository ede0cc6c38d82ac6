"""The process: its ports, its signals, its workers, and how it is put together."""
