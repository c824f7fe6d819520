"""What a learned cascade learns while it serves: pure, the time and the labels passed in."""
