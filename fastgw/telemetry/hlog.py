"""Histograms in HdrHistogram's log format, which its viewers open and add up: of several times, of several machines.

Values are microseconds. A line's tag is `tool/server/outcome/stage`, each as in a URL; empty for a tool or a server
that there was not.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote

from hdrh.histogram import HdrHistogram

from fastgw.telemetry.histogram import LONGEST, highest
from fastgw.telemetry.latencies import PERCENTS, STAGES, Latencies, Percentiles

DIGITS = 3
HEAD = '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'


def lines(latencies: Latencies, window: str) -> Iterator[str]:
    """The log of a window, format version 1.3: a line for each slice of it, series and stage."""
    now = time.time()
    yield "#[fastgw, values in microseconds]\n#[Histogram log format version 1.3]\n"
    began = False
    for begun, ended, rows in latencies.intervals(window):
        if not began:
            day = time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(now - begun))
            yield f"#[StartTime: {now - begun:.3f} (seconds since epoch), {day}]\n{HEAD}"
            began = True
        for series, stage, buckets, counts in rows:
            histogram = HdrHistogram(1, LONGEST, DIGITS)
            for bucket, count in zip(buckets, counts, strict=True):
                histogram.record_value(highest(bucket), count)
            tag = "/".join(quote(part or "", safe="") for part in (*series, stage))
            longest, text = histogram.get_max_value() / 1000, histogram.encode().decode()
            yield f"Tag={tag},{now - begun:.3f},{begun - ended:.3f},{longest:.3f},{text}\n"


def percentiles(logs: Iterable[str]) -> list[Percentiles]:
    """Those of several logs together, as `Latencies.percentiles`: histograms of one tag are added up, never averaged.

    Raises:
        ValueError: a line is none of a log that `lines` makes.
    """
    merged: dict[tuple[str, str, str, int], HdrHistogram] = {}
    for line in (line for log in logs for line in log.splitlines() if line.startswith("Tag=")):
        try:
            tag, _, _, _, encoded = line.removeprefix("Tag=").split(",")
            tool, server, outcome, stage = map(unquote, tag.split("/"))
            key = tool, server, outcome, STAGES.index(stage)
            merged.setdefault(key, HdrHistogram(1, LONGEST, DIGITS)).decode_and_add(encoded)
        except Exception as wrong:  # whatever the package makes of it
            raise ValueError(f"not a histogram of fastgw: {line[:80]}") from wrong
    found = []
    for (tool, server, outcome, place), histogram in sorted(merged.items(), key=lambda one: one[0]):
        values = histogram.get_percentile_to_value_dict(PERCENTS)
        series = tool or None, server or None, outcome
        micros = [values[percent] for percent in PERCENTS]
        found.append(Percentiles.of(series, STAGES[place], histogram.total_count, micros))
    return sorted(found, key=lambda one: -one.count)
