"""Looks into models: the calls of their parts, a check by shapes, their operations."""
