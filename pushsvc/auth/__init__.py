"""Who may connect and publish: tokens and the keys that verify them."""
