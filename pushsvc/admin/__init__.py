"""The admin port: health, metrics, the console, traces, and what development adds."""
