"""The domain: feeds, cursors, listeners and node leases, kept in Redis."""
