"""The real images that a visualization is matched with, and their statistics."""
