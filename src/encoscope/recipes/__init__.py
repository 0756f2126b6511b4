"""How the shipped networks were trained: ``python -m encoscope.recipes.NAME``."""
