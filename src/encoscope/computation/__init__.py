"""What a network is, as far as it can be seen without running it: its weights, and what its modules compute."""

from encoscope.computation.describe import describe_computation, draw_signs
from encoscope.computation.weights import hash_weights

__all__ = ["describe_computation", "draw_signs", "hash_weights"]
