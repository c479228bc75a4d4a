"""The error of a configuration that cannot be used."""


class ConfigError(ValueError):
    """Bad input of the user, told in words that name the thing and the mend."""
