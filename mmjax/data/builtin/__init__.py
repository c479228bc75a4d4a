"""Built-in data sets, generated or downloaded once and stored as TFDS array records."""
