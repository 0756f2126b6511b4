"""FALCON's tables and figures."""
