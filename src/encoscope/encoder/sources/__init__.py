"""The sources of networks: a module for each scheme of a source string, each with ``build_model(request)``."""
