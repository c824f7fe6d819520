"""Those who answer: OpenAI-compatible servers, engines on this machine, recordings."""
