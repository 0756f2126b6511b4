"""VITAL (Gorgun, Schiele and Fischer 2025): what a unit looks like, and the methods it is compared with."""

from encoscope.vital.estimator import Vital, visualize
from encoscope.vital.visualization import Visualization, make_contact_sheet

__all__ = ["Visualization", "Vital", "make_contact_sheet", "visualize"]
