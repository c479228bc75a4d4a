"""Describes data sets as tables and example plots."""
