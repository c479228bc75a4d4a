"""Balancers that need the Gramian of the tasks' gradients."""
