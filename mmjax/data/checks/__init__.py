"""Checks data before training: shapes, values, scales, leaks and duplicates."""
