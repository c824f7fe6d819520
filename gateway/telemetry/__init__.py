"""What the gateway tells monitoring."""
