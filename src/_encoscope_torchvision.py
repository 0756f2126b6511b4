"""Imported when Python starts (by encoscope_torchvision.pth): see ``encoscope._torchvision``, which this waits for.

Nothing but ``sys`` is imported here, so that a start costs next to nothing.
"""

import sys

WATCHED = ("torchvision.extension", "torchvision.ops.boxes")


class TorchvisionFinder:
    """Finds two of torchvision's modules as Python does, and completes each after it was executed, if it has to be."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Find one of the two modules; all others are left to Python's own finders."""
        if name not in WATCHED:
            return None
        for finder in sys.meta_path:
            if finder is not TorchvisionFinder and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    complete_after_execution(spec.loader)
                    return spec
        return None


def complete_after_execution(loader):
    """Let a loader complete its module after it has executed it."""
    execute = getattr(loader, "exec_module", None)
    if execute is None or not hasattr(loader, "__dict__"):  # a loader of another kind is left alone
        return

    def execute_and_complete(module):
        execute(module)
        try:
            from encoscope._torchvision import complete_module
        except Exception:  # encoscope is gone: torchvision stays as it is
            return
        complete_module(module)

    loader.exec_module = execute_and_complete


sys.meta_path.insert(0, TorchvisionFinder)
