"""The reports of the admin port: what each says, and how it is put together."""
