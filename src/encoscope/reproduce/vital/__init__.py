"""VITAL's tables and figures."""
