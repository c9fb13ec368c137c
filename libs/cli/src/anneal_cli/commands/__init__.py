"""The commands, one module a subject. Each is thin: ask the gateway, hand the answer to a view."""
