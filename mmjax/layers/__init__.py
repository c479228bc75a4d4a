"""Layers that parts of all families use."""
