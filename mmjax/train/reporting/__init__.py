"""Output of training: progress, logs of metrics, tables, learning curves."""
