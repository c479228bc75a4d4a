"""Balancers that need the tasks' gradients themselves, one row of the Jacobian per task."""
