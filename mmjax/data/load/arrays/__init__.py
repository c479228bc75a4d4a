"""Reads arrays: of NumPy and other libraries, padded to one length, and files of them."""
