"""Encodes targets, and completes the tasks that they belong to."""
