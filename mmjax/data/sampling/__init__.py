"""Decides which examples a batch has, and how much each of them counts."""
