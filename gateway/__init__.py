"""The proxy: edge, pipeline, providers, money, and the command line."""
