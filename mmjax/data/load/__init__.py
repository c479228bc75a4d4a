"""Loads data sets from arrays, tables and TFDS builders."""
