"""Auxiliary objectives of the methods against imbalance."""
