"""NAVE's tables and figures."""
