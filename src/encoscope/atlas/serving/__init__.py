"""Serving a site: the same pages over HTTP, and uploaded images segmented live."""

from encoscope.atlas.serving.app import create_app, serve
from encoscope.atlas.serving.limits import Limits
from encoscope.atlas.serving.site import serve_atlas

__all__ = ["Limits", "create_app", "serve", "serve_atlas"]
