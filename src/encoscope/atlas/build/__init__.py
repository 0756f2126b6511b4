"""Filling an atlas: each stage calls one of the public verbs and turns what it gives into records."""

from encoscope.atlas.build.build import build
from encoscope.atlas.build.plan import Options, Plan, plan

__all__ = ["Options", "Plan", "build", "plan"]
