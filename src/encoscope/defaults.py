"""Defaults that functions of several rooms and the command line share, each written once. Nothing heavy is here.

What decides a method's result stands in that method's settings; here is what every function takes.
"""

DEVICE = "auto"
"""Where networks run: a GPU if there is one."""

PRECISION = "fp32"
"""Of the forward pass."""

RANDOM_STATE = 0
"""The seed of everything random."""

BATCH_SIZE = 32
"""Images at a time, where a function holds little of each. It changes no result."""

GRADIENT_BATCH_SIZE = 16
"""Images at a time, where the gradients of each are held."""

FEATURES = "features"
"""The values of a network that are probed: the pooled ones, which its head takes."""

BACKGROUND = "white"
"""The color under transparent pixels."""

MAX_PIXELS = 100_000_000
"""Pixels of the largest image that is read; Pillow warns at 89 million."""
