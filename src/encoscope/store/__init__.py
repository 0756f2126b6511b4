"""Arrays on disk that survive being killed: shards to map into memory, a journal that says what is done, an index."""

from encoscope.cache import get_cache_dir
from encoscope.store.journal import StoreRow
from encoscope.store.keys import content_key
from encoscope.store.store import Store

__all__ = ["Store", "StoreRow", "content_key", "get_cache_dir"]
