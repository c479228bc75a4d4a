"""Checks of an experiment before it trains."""
