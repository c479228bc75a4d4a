"""Original files of public data sets: their download and the readers of their formats."""
