"""What an operator may write: schema, loader, rules, and the kinds that extend it."""
