"""Array kernels that are fast on CPU, each behind one function with the plain version beside it."""
