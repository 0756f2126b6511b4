"""Filling an atlas: each stage calls one of the public verbs and turns what it gives into records."""

from encoscope.atlas.build.build import build
from encoscope.atlas.build.plan import BuildOptions, BuildPlan, plan

__all__ = ["BuildOptions", "BuildPlan", "build", "plan"]
