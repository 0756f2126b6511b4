"""Where networks come from: a module for each scheme of a model string, each with ``build(request)``."""
