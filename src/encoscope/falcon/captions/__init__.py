"""Captions: a store of them, how one is built and read, and the search for the nearest."""
