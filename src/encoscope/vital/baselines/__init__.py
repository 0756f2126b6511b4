"""The methods VITAL is compared with, in the same synthesis loop."""
