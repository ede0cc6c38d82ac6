"""A node: the sockets it holds, and how what is published reaches them."""
