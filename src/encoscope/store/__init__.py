"""Arrays and files on disk that survive a kill: whole or absent, named by content, with checksums in a journal."""

from encoscope.cache import content_key, get_cache_dir
from encoscope.store.folder import JournaledFolder
from encoscope.store.store import Store, StoreRow

__all__ = ["JournaledFolder", "Store", "StoreRow", "content_key", "get_cache_dir"]
