"""What training shows and writes: progress, logs of metrics, tables, learning curves."""
