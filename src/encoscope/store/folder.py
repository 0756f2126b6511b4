"""The common core of everything kept on disk: a folder whose files are whole or absent, with a journal of checksums.

``JournaledFolder`` holds a few files that any number of processes may write: checkpoints, statistics, images, measured
values. ``StoreFolder`` adds a manifest that says what made the content, and a lock for one writer at a time: ``Store``
and the caption store are made of it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from encoscope.cache import find_keyed_folder, first_difference, to_plain_json
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.results import atomic_write
from encoscope.store.files import FolderLockedError, Lock, explain_os_errors, hash_file, sync_folder
from encoscope.store.journal import Journal

MANIFEST, JOURNAL, LOCK = "manifest.json", "journal.jsonl", "lock"
_log = logging.getLogger("encoscope")

_Journaled = TypeVar("_Journaled", bound="JournaledFolder")
_Store = TypeVar("_Store", bound="StoreFolder")


class JournaledFolder:
    """A folder of files, each with its sha256 in a journal beside them. Nothing is on disk before a file is written.

    Args:
        path: The folder.
        manifest: What makes the content, of values that JSON can hold; it becomes the journal's first entry.
        fresh: Forget what an earlier run wrote.
        about: Further facts, of values that JSON can hold; they are in the journal's first entry, too.

    Attributes:
        path: The folder.
        journal: Its entries, those of files and those added by ``append_entry``.

    Raises:
        EncoscopeError: a damaged journal.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        manifest: Mapping[str, Any] | None = None,
        *,
        fresh: bool = False,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self._preface = None if manifest is None else {"manifest": to_plain_json(manifest)}
        if self._preface is not None and about is not None:
            self._preface["about"] = to_plain_json(about)
        if fresh:
            with explain_os_errors(self.path):
                (self.path / JOURNAL).unlink(missing_ok=True)
        self.journal = Journal(self.path / JOURNAL)

    @classmethod
    def keyed(
        cls: type[_Journaled],
        kind: str,
        manifest: Mapping[str, Any],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        fresh: bool = False,
        restart: bool = False,
        about: Mapping[str, Any] | None = None,
        accepts: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> _Journaled:
        """Name a folder of the cache after the content of a manifest.

        Args:
            kind: What is kept, the folder above: "synthesis", "prototypes", ...
            manifest: What makes the content.
            cache_dir: The user's own cache folder; None is the usual one.
            fresh: Forget what an earlier run wrote.
            restart: Forget it too, with a warning, where the journal is damaged: for what is quickly computed again.
            about: Further facts that are kept beside the content.
            accepts: Tells, of the facts beside earlier content, whether that may be used; otherwise it is forgotten.

        Returns:
            The folder of this manifest: the same for the same content.

        Raises:
            EncoscopeError: a damaged journal, without ``restart``.
        """
        path = find_keyed_folder(kind, manifest, cache_dir)
        try:
            folder = cls(path, manifest, fresh=fresh, about=about)
        except EncoscopeError as error:
            if not restart:
                raise
            _log.warning("%s: starting over", _first_clause(error))
            return cls(path, manifest, fresh=True, about=about)
        entries = folder.journal.entries
        if entries and accepts is not None and not accepts(entries[0].get("about", {})):
            return cls(path, manifest, fresh=True, about=about)
        return folder

    def append_entry(self, entry: Mapping[str, Any]) -> None:
        """Add an entry to the journal; when this returns, it lasts.

        Args:
            entry: Plain JSON values.

        Raises:
            EncoscopeError: a full disk, a folder that cannot be written.
        """
        with explain_os_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if self._preface is not None and not self.journal.entries:
                self.journal.append(self._preface)
            self.journal.append(entry)

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Write a file in place of an earlier one of this name, whole or not at all.

        The checksum is entered just before the file gets its name. So whatever the moment of a crash, and whichever of
        two processes is last, the file of this name has a checksum in the journal.

        Args:
            name: Of the file in the folder.

        Yields:
            A temporary path with the same suffix, to write the content to.

        Raises:
            EncoscopeError: a full disk, a folder that cannot be written.
        """
        with explain_os_errors(self.path):
            with atomic_write(self.path / name) as temporary:
                yield temporary
                self.append_entry({"sha256": {name: hash_file(temporary)}})
            sync_folder(self.path)

    @contextmanager
    def write_together(self, names: Sequence[str], entry: Mapping[str, Any]) -> Iterator[list[Path]]:
        """Write files that belong together: none of them counts before the journal's entry, which names them all.

        Args:
            names: Of new files in the folder, which may lie in its subfolders.
            entry: Plain JSON values; the files' checksums are added to it.

        Yields:
            A temporary path for each file, with the same suffix, to write the content to.

        Raises:
            EncoscopeError: a full disk, a folder that cannot be written.
        """
        checksums: dict[str, str] = {}
        with explain_os_errors(self.path):
            with ExitStack() as stack:
                temporaries = [stack.enter_context(atomic_write(self.path / name)) for name in names]
                yield temporaries
                checksums |= {name: hash_file(file) for name, file in zip(names, temporaries, strict=True)}
            for folder in {(self.path / name).parent for name in names}:
                sync_folder(folder)
        self.append_entry({**entry, "sha256": checksums})

    def check(self, name: str) -> Path:
        """Compare a file with its checksums, before it is read.

        Args:
            name: Of the file in the folder.

        Returns:
            The file's path.

        Raises:
            MissingError: there is no such file, or it was never entered.
            EncoscopeError: its content is not what was written.
        """
        file = self.path / name
        if name not in self.journal.checksums or not file.is_file():
            raise MissingError(f"no such file: {file}")
        if not self._is_whole(name):
            raise EncoscopeError(f"{file} is damaged: start over with --fresh")
        return file

    def find(self, name: str) -> Path | None:
        """Find a file that can be computed again where it is missing or damaged.

        Args:
            name: Of the file in the folder.

        Returns:
            The file's path; None where there is none, or (with a warning) its content is not what was written.
        """
        try:
            return self.check(name)
        except MissingError:
            return None
        except EncoscopeError as error:
            _log.warning("%s: computing it again", _first_clause(error))
            return None

    def verify(self) -> list[Path]:
        """Read every file that the journal names, and compare it with its checksums.

        Returns:
            The files that are damaged or missing; empty for a folder in order.
        """
        return [self.path / name for name in self.journal.checksums if not self._is_whole(name)]

    def delete(self, name: str) -> None:
        """Delete a file, if it is there, and forget its checksums.

        Args:
            name: Of the file in the folder.
        """
        with explain_os_errors(self.path):
            if name in self.journal.checksums:
                self.append_entry({"sha256": {name: None}})
            (self.path / name).unlink(missing_ok=True)

    def _is_whole(self, name: str) -> bool:
        try:
            return hash_file(self.path / name) in self.journal.checksums[name]
        except OSError:
            return False


class StoreFolder(JournaledFolder):
    """A folder with a manifest of what made it. Made by ``open``, to write in it alone, or ``load``, to read it.

    Args:
        path: The folder.
        document: The content of its manifest file.
        lock: The writer's lock; None to read only.

    Attributes:
        manifest: What made the content; a folder is only continued with an equal one.
        about: Further facts that may differ, such as names.
    """

    FORMAT = "encoscope.store/2"
    CONTENT = "store"
    """What the folder holds, for messages."""
    SHARDS: Sequence[str] = ()
    """Patterns of files that do not count until the journal names them."""
    FILES: Sequence[str] = ()
    """Patterns of other files that the store writes."""

    def __init__(self, path: Path, document: Mapping[str, Any], lock: Lock | None = None) -> None:
        super().__init__(path)
        self.manifest = dict(document["manifest"])
        self.about = dict(document["about"])
        self._lock = lock

    @classmethod
    def open(
        cls: type[_Store],
        path: str | os.PathLike[str],
        manifest: Mapping[str, Any],
        *,
        about: Mapping[str, Any] | None = None,
        fresh: bool = False,
    ) -> _Store:
        """Make a store, or continue one that was made from the same manifest. Only one process at a time.

        A store that an earlier version of encoscope wrote in another format is started over.

        Args:
            path: The folder.
            manifest: What shapes the content (digests, layers, settings, version), of values that JSON can hold.
            about: Further facts for whoever reads the manifest; they may differ from those of an earlier run.
            fresh: Start over.

        Returns:
            The store, to write and read. Close it, or use it as a context manager.

        Raises:
            FolderLockedError: another process writes to it.
            EncoscopeError: the folder holds something else, was made from another manifest, or cannot be written.
        """
        path = Path(path)
        document = {"format": cls.FORMAT, "manifest": to_plain_json(manifest), "about": to_plain_json(about or {})}
        with explain_os_errors(path):
            cls._read_document(path)  # a folder of something else is not touched at all
            path.mkdir(parents=True, exist_ok=True)
            lock = Lock(path / LOCK)
            try:
                existing = cls._read_document(path)
                if existing is not None and existing["format"] != cls.FORMAT:
                    _log.warning("%s was written by another version of encoscope: starting over", path)
                    existing = None
                if existing is None or fresh:
                    cls._clear(path)
                    store = cls._create(path, document, lock)
                else:
                    difference = first_difference(existing["manifest"], document["manifest"])
                    if difference:
                        where, old, new = difference
                        raise EncoscopeError(
                            f"{path} was made with {where} = {old}, not {new}: "
                            "start over (--fresh), or use another folder"
                        )
                    store = cls(path, existing, lock)
                store._sweep()
                return store
            except BaseException:
                lock.release()
                raise

    @classmethod
    def keyed(
        cls: type[_Store],
        kind: str,
        manifest: Mapping[str, Any],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        fresh: bool = False,
        restart: bool = False,
        about: Mapping[str, Any] | None = None,
        accepts: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> _Store:
        """Open the store of the cache that is named after its manifest, to write in it alone.

        Args:
            kind: What is kept, the folder above: "probe", "nave", ...
            manifest: What shapes the content.
            cache_dir: The user's own cache folder; None is the usual one.
            fresh: Start over.
            restart: Start over, with a warning, where the store is damaged.
            about: As for ``open``.
            accepts: Tells, of the further facts of a store that is there, whether it may be used; otherwise it is
                started over.

        Returns:
            The store, as ``open`` gives it.

        Raises:
            FolderLockedError: another process writes to it.
            EncoscopeError: as for ``open``.
        """
        path = find_keyed_folder(kind, manifest, cache_dir)
        try:
            kept = None if fresh or accepts is None else cls.read_about(path)
            fresh = fresh or (kept is not None and accepts is not None and not accepts(kept))
            return cls.open(path, manifest, about=about, fresh=fresh)
        except FolderLockedError:
            raise
        except EncoscopeError as error:
            if not restart:
                raise
            _log.warning("%s: starting over", _first_clause(error))
            return cls.open(path, manifest, about=about, fresh=True)

    @classmethod
    def load_keyed(
        cls: type[_Store], kind: str, manifest: Mapping[str, Any], cache_dir: str | os.PathLike[str] | None = None
    ) -> _Store | None:
        """Read the store of the cache that is named after its manifest, as far as it is done.

        Args:
            kind: What is kept, the folder above.
            manifest: What shapes the content.
            cache_dir: The user's own cache folder; None is the usual one.

        Returns:
            The store, to read; None where there is none of this manifest.

        Raises:
            EncoscopeError: the folder holds something else, or its manifest is damaged.
        """
        try:
            store = cls.load(find_keyed_folder(kind, manifest, cache_dir))
        except MissingError:
            return None
        return store if store.manifest == to_plain_json(manifest) else None

    @classmethod
    def load(cls: type[_Store], path: str | os.PathLike[str]) -> _Store:
        """Read a store as far as it is done, also while another process writes it.

        Args:
            path: The folder.

        Returns:
            The store, to read.

        Raises:
            MissingError: there is none, or one in the format of an earlier version of encoscope.
            EncoscopeError: the folder holds something else, or its manifest is damaged.
        """
        path = Path(path)
        document = cls._read_document(path)
        if document is None:
            raise MissingError(f"no {cls.CONTENT} at {path}")
        if document["format"] != cls.FORMAT:
            raise MissingError(
                f"the {cls.CONTENT} at {path} was written by another version of encoscope "
                f"({document['format']}, not {cls.FORMAT}): make it again"
            )
        store = cls(path, document)
        if MANIFEST in store.journal.checksums:
            store.check(MANIFEST)
        return store

    @classmethod
    def read_about(cls, path: str | os.PathLike[str]) -> dict[str, Any] | None:
        """Read the further facts of a store, as ``open`` was given them when it was made.

        Args:
            path: The folder.

        Returns:
            The facts; None where there is no store, or one in another format.

        Raises:
            EncoscopeError: the folder holds something else, or its manifest is damaged.
        """
        document = cls._read_document(Path(path))
        if document is None or document["format"] != cls.FORMAT:
            return None
        about = document.get("about")
        return about if isinstance(about, dict) else {}

    @property
    def complete(self) -> bool:
        """Whether the content was finished, and nothing was added since."""
        for entry in reversed(self.journal.entries):
            if entry.keys() - {"sha256"}:
                return "complete" in entry
        return False

    def remove(self) -> None:
        """Delete all that the store has written, and the folder if nothing else is in it."""
        self._require_writable()
        with explain_os_errors(self.path):
            self._clear(self.path)
            (self.path / LOCK).unlink()
            if not any(self.path.iterdir()):
                self.path.rmdir()
        self.close()

    def close(self) -> None:
        """Let others write. Reading goes on working."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self: _Store) -> _Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_writable(self) -> None:
        if self._lock is None:
            raise UsageError(f"{self.path} is open for reading only: use {type(self).__name__}.open to write")

    def _sweep(self) -> None:
        """Remove what a killed writer left: temporary files, and shards that never reached the journal."""
        for file in self._list_files(self.path, self.SHARDS):
            if _is_temporary(file) or file.relative_to(self.path).as_posix() not in self.journal.checksums:
                file.unlink()

    @classmethod
    def _create(cls: type[_Store], path: Path, document: Mapping[str, Any], lock: Lock) -> _Store:
        store = cls(path, document, lock)
        with store.write(MANIFEST) as temporary:
            temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        return store

    @classmethod
    def _clear(cls, path: Path) -> None:
        """Empty a store, journal first and manifest last: stopped halfway, it is a store with nothing in it."""
        (path / JOURNAL).unlink(missing_ok=True)
        sync_folder(path)
        for file in cls._list_files(path, (*cls.SHARDS, *cls.FILES)):
            file.unlink()
        (path / MANIFEST).unlink(missing_ok=True)

    @classmethod
    def _list_files(cls, path: Path, patterns: Sequence[str]) -> list[Path]:
        """The files of some patterns, and temporary files beside them."""
        folders = {path, *((path / pattern).parent for pattern in patterns)}
        temporary = {file for folder in folders for file in folder.glob(".*") if _is_temporary(file)}
        return [*temporary, *(file for pattern in patterns for file in path.glob(pattern) if file not in temporary)]

    @classmethod
    def _read_document(cls, path: Path) -> dict[str, Any] | None:
        """What the manifest's file says; None where a store can be made; EncoscopeError for anything else."""
        if not path.exists():
            return None
        file = path / MANIFEST
        try:
            if not file.exists() and all(
                item.name in (LOCK, JOURNAL) or _is_temporary(item) for item in path.iterdir()
            ):
                return None
            document = json.loads(file.read_text(encoding="utf-8"))
            name, _, version = document["format"].partition("/")
            readable = document["format"] != cls.FORMAT or isinstance(document["manifest"], dict)
            if name == cls.FORMAT.partition("/")[0] and version.isdigit() and readable:
                return document
        except PermissionError as error:
            raise EncoscopeError(f"cannot read {path}: {error.strerror}") from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            pass
        raise EncoscopeError(
            f"{path} is not a {cls.CONTENT} ({cls.FORMAT}) and not an empty folder: use another folder"
        )


def _first_clause(error: EncoscopeError) -> str:
    """A message without its cure."""
    return str(error).partition(":")[0]


def _is_temporary(file: Path) -> bool:
    return file.name.startswith(".") and file.suffix in (".npy", ".npz", ".json", ".jsonl", ".parquet", ".faiss")
