"""Data: what a data set is, how batches are drawn, and one file a data set."""
