"""The version, apart from the package's public names so that any room may read it."""

__version__ = "0.1.0"
