"""How a cascade learns from its own traffic: which step is due, and what it comes to. All pure."""
