"""What the node says of itself: OpenAPI, AsyncAPI and a page made of both."""
