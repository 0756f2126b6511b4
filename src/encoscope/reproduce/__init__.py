"""The papers' tables and figures, each a command: `encoscope reproduce NAME`."""

from encoscope.reproduce.registry import EXPERIMENTS, Experiment, find_experiment
from encoscope.reproduce.run import run_experiment

__all__ = ["EXPERIMENTS", "Experiment", "find_experiment", "run_experiment"]
