"""The error of a configuration that cannot be used."""


class ConfigError(ValueError):
    """Invalid user input. The message names the value and how to fix it."""
