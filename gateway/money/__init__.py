"""What a request used, what that costs, and the record that proves it."""
