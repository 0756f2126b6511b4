"""Small trained networks that ship with the package, and the recipes they came from."""

from encoscope.zoo.registry import ZooEntry, find_entry, list_names, list_networks

__all__ = ["ZooEntry", "find_entry", "list_names", "list_networks"]
