"""The command `frugal`, one module a command."""
