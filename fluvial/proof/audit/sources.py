"""Where an audit reads: a log and a store, opened anew by every process that folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backends.kafka.reading import LogReader
from backends.log import TopicReader
from backends.object_store import ObjectStore
from backends.settings import Settings
from backends.store.factory import open_object_store


@dataclass(frozen=True, slots=True)
class Sources:
    """``open_reader`` takes what the reader is for."""

    open_reader: Callable[[str], TopicReader]
    store: ObjectStore


OpenSources = Callable[[], Sources]
"""Called in each process; a function or ``partial`` that can be pickled where there are several."""


def sources_of(settings: Settings) -> Sources:
    """The broker and the store of ``settings``."""
    return Sources(lambda purpose: LogReader(settings, purpose), open_object_store(settings.store))
