"""Programs compiled for TPU slices without a TPU, and estimates of their memory and time."""
