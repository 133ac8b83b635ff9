"""Histograms in HdrHistogram's log format, which its viewers open and add up: of several times, of several machines.

Values are microseconds. A line's tag is `tool/server/outcome/stage`, each as in a URL; empty for a tool or a server
that there was not.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any
from urllib.parse import quote, unquote

from fastgw.telemetry.counters import STAGES
from fastgw.telemetry.histogram import LONGEST, highest
from fastgw.telemetry.latencies import PERCENTS, Latencies, Percentiles

DIGITS = 3
HEAD = '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'


def _empty() -> Any:
    """An HdrHistogram; raises ImportError without the package `hdrhistogram`, which not every machine has."""
    return import_module("hdrh.histogram").HdrHistogram(1, LONGEST, DIGITS)


def lines(latencies: Latencies, window: str) -> Iterator[str]:
    """The log of a window, format version 1.3: a line for each slice of it, series and stage. Raises ImportError."""
    now, intervals = time.time(), list(latencies.intervals(window))
    start = now - max((begun for begun, _, _ in intervals), default=0.0)
    day = time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(start))
    yield "#[fastgw, values in microseconds]\n#[Histogram log format version 1.3]\n"
    yield f"#[StartTime: {start:.3f} (seconds since epoch), {day}]\n{HEAD}"
    for begun, ended, rows in intervals:
        for series, stage, buckets, counts in rows:
            histogram = _empty()
            for bucket, count in zip(buckets, counts, strict=True):
                histogram.record_value(highest(bucket), count)
            tag = "/".join(quote(part or "", safe="") for part in (*series, stage))
            longest, text = histogram.get_max_value() / 1000, histogram.encode().decode()
            yield f"Tag={tag},{now - begun:.3f},{begun - ended:.3f},{longest:.3f},{text}\n"


def percentiles(logs: Iterable[str]) -> list[Percentiles]:
    """Those of several logs together, as `Latencies.percentiles`: histograms of one tag are added up, never averaged.

    Raises ImportError, and ValueError for a line that is none of a log of ours.
    """
    merged: dict[tuple[str, ...], Any] = defaultdict(_empty)
    for line in (line for log in logs for line in log.splitlines() if line.startswith("Tag=")):
        try:
            tag, _, _, _, encoded = line.removeprefix("Tag=").split(",")
            tool, server, outcome, stage = map(unquote, tag.split("/"))
            STAGES.index(stage)
            merged[tool, server, outcome, stage].decode_and_add(encoded)
        except ImportError:
            raise
        except Exception as wrong:  # whatever the package makes of it
            raise ValueError(f"not a histogram of fastgw: {line[:80]}") from wrong
    found = []
    for (tool, server, outcome, stage), histogram in merged.items():
        times = [micros / 1000 for micros in histogram.get_percentile_to_value_dict(PERCENTS).values()]
        found.append(Percentiles(tool or None, server or None, outcome, stage, histogram.total_count, *times))
    return sorted(found, key=lambda one: -one.count)
