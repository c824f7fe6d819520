"""How good each model's answer will be, before any model was asked."""
