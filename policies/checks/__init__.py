"""What must hold between the parts of a policy, once each part is well formed by itself."""
