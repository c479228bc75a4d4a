"""Run directories: what makes a run, written, read back and reused."""
