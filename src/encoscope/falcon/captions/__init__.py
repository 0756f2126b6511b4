"""Captions: a store of them, how it is built and read, and the search for the nearest."""
