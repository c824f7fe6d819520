"""Which model answers a request, and whether its answer is good enough."""
