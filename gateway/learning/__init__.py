"""Learning from outcomes: what the command line and the running gateway ask of the router."""
