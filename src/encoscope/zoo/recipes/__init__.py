"""How the shipped networks were trained: ``python -m encoscope.zoo.recipes.NAME``."""
