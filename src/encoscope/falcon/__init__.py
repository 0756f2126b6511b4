"""FALCON: what a feature stands for, in words (ICML 2023, arXiv 2307.10504)."""
