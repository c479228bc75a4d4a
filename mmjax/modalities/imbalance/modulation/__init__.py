"""Modulation of encoders by the scores of their modalities."""
