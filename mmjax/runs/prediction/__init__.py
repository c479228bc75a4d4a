"""Predictions of trained models: made, tabulated, written, read back and compared."""
