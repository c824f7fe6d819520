"""The learned router against the published protocols, on public outcomes of real models."""
