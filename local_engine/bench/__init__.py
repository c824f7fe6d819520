"""What the engine does in how much time, on random weights of a true shape."""
