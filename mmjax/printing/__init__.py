"""Text for people: the console, escapes per format, and the form of shapes and numbers."""
