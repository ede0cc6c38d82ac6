"""Pure protocol code: frames, messages, names and the delivery state; no I/O."""
