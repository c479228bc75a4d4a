"""Reads TFDS data sets: their features, their records and their sources."""
