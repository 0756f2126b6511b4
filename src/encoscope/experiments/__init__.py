"""Measurements one can run again: each a command."""
