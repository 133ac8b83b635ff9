"""Where usage events go besides `data/usage`: one sink for each entry of `usage.sinks`."""

from __future__ import annotations

from pathlib import Path

from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks.local import FileSink, StdoutSink
from fastgw.usage.sinks.sink import Sink, SinkDown

__all__ = ["Sink", "SinkDown", "make_sink"]


def make_sink(settings: SinkSettings, base: Path) -> Sink:
    """The sink that an entry describes; nothing is opened by it. `base`: the folder of relative paths.

    Raises:
        ValueError: this release has none of that kind.
    """
    match settings.url.partition(":")[0]:
        case "stdout":
            return StdoutSink()
        case "file":
            return FileSink(base / settings.url.removeprefix("file:"))
        case other:
            raise ValueError(f"no sink is called {other}")
