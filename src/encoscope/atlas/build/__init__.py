"""Building an atlas: each stage calls one of the public verbs and turns its results into records."""

from encoscope.atlas.build.build import build_atlas
from encoscope.atlas.build.plan import BuildPlan, plan_build

__all__ = ["BuildPlan", "build_atlas", "plan_build"]
