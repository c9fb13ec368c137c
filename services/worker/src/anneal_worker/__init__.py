"""The model roles, and carrying out one approved action on a target."""
