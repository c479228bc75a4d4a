"""Balancers that need only the values of the losses: one backward pass per step."""
