"""VITAL (Gorgun, Schiele and Fischer 2025): what a unit looks like, and the methods it is compared with."""
