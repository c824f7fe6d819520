"""How a running policy is changed: shown without secrets, checked, planned, applied, taken back."""
