"""The cases, one file per group."""
