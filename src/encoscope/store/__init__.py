"""Arrays on disk that survive being killed: shards to map into memory, a journal that says what is done, an index."""

from encoscope.cache import cache_dir
from encoscope.store.journal import Row
from encoscope.store.keys import key
from encoscope.store.store import Store

__all__ = ["Row", "Store", "cache_dir", "key"]
