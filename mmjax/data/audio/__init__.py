"""Reads, synthesizes and transforms sound."""
