"""Where usage events go besides `data/usage`: one sink for each entry of `usage.sinks`."""

from __future__ import annotations

from pathlib import Path

from fastgw.config.schema.settings import SinkSettings
from fastgw.usage.sinks.clickhouse import ClickHouseSink
from fastgw.usage.sinks.http_sink import NdjsonSink
from fastgw.usage.sinks.local import FileSink, StdoutSink
from fastgw.usage.sinks.otlp import OtlpSink
from fastgw.usage.sinks.redis_stream import RedisStreamSink
from fastgw.usage.sinks.sink import Sink, SinkDown

__all__ = ["Sink", "SinkDown", "make_sink"]


def make_sink(settings: SinkSettings, base: Path) -> Sink:
    """The sink that an entry describes; nothing is opened by it. `base`: the folder of relative paths."""
    match settings.url.partition(":")[0]:
        case "stdout":
            return StdoutSink()
        case "file":
            return FileSink(base / settings.url.removeprefix("file:"))
        case "redis" | "rediss":
            return RedisStreamSink(settings)
        case "otlp" | "otlps":
            return OtlpSink(settings)
        case "clickhouse" | "clickhouses":
            return ClickHouseSink(settings)
        case _:
            return NdjsonSink(settings)
