"""The one error of this room: a configuration that cannot be run, told in one line per problem."""


class ConfigError(Exception):
    """The configuration is wrong; the message names each key, what it was and what was expected."""
