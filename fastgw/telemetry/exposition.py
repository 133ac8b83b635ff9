"""What Prometheus reads: its text format 0.0.4, and OpenMetrics 1.0 with exemplars where that is asked for.

Sources: prometheus.io/docs/instrumenting/exposition_formats, and the OpenMetrics specification, 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, NamedTuple

from fastgw.telemetry.counters import BOUNDS, Exemplar, Series
from fastgw.telemetry.histogram import Counts, at_most, seconds_in

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
UNITS: Final = ("seconds", "bytes", "ratio")
_LE: Final = (*(repr(bound) for bound in BOUNDS), "+Inf")
"""Both formats spell a bound alike, as OpenMetrics wants it (1.0), or each would make series of its own."""
_QUALITY = re.compile(r";\s*q=([01](?:\.[0-9]{0,3})?)\s*(?:;|$)")


class Family(NamedTuple):
    """One metric: its kind (`counter`, `gauge`, `histogram`, `summary`, `info`), what it says, its label names."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Readings:
    """All values at one moment. It shares nothing with what goes on counting, so a thread may write it out.

    Args:
        values: of counters, gauges, summaries and infos.
        times: of histograms.
        exemplars: of a histogram's buckets: its name, and the place of the bound in `BOUNDS`.
    """

    values: dict[Series, float]
    times: dict[Series, Counts] = field(default_factory=dict)
    exemplars: dict[tuple[str, int], Exemplar] = field(default_factory=dict)


def wants_openmetrics(accept: str) -> bool:
    """Whether an `Accept` header prefers OpenMetrics to plain text; who says nothing of it gets text."""
    found = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.lower().split(","):
        media = part.partition(";")[0].strip()
        if media in found:
            quality = _QUALITY.search(part)
            found[media] = max(found[media], float(quality[1]) if quality else 1.0)
    return 0 < found["application/openmetrics-text"] >= found["text/plain"]


def written(families: Mapping[str, Family], readings: Readings, *, openmetrics: bool = False) -> bytes:
    """The text. A series whose name is not among `families` is left out."""
    rows = {name: list(found) for name, found in groupby(sorted(readings.values), lambda series: series[0])}
    times = {name: list(found) for name, found in groupby(sorted(readings.times), lambda series: series[0])}
    lines: list[str] = []
    for name, family in families.items():
        lines += _head(name, family, openmetrics=openmetrics)
        if family.kind == "histogram":
            exemplars = readings.exemplars if openmetrics else {}
            for series in times.get(name) or ([] if family.labels else [(name,)]):
                lines += _histogram(_pairs(family.labels, series[1:]), name, readings.times.get(series, {}), exemplars)
            continue
        # What has no labels is always there; a counter that is not yet counts nought.
        for series in rows.get(name) or ([] if family.labels else [(name,)]):
            lines.append(f"{name}{_braced(_pairs(family.labels, series[1:]))} {readings.values.get(series, 0)}")
    if openmetrics:
        lines.append("# EOF")
    # Whatever a name was given: one that is no Unicode must not cost all the others.
    return ("\n".join(lines) + "\n").encode(errors="backslashreplace")


def _head(name: str, family: Family, *, openmetrics: bool) -> Iterator[str]:
    kind = family.kind
    if openmetrics:
        name = name.removesuffix({"counter": "_total", "info": "_info"}.get(kind, ""))
    elif kind == "info":
        kind = "gauge"
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {kind}"
    unit = name.rpartition("_")[2]
    if openmetrics and unit in UNITS:
        yield f"# UNIT {name} {unit}"


def _histogram(pairs: str, name: str, counts: Counts, exemplars: Mapping[tuple[str, int], Exemplar]) -> Iterator[str]:
    calls, comma = sum(counts.values()), "," if pairs else ""
    for at, (bound, count) in enumerate(zip(_LE, (*at_most(counts, BOUNDS), calls), strict=True)):
        found = exemplars.get((name, at))
        more = "" if found is None else f' # {{trace_id="{found.trace_id}"}} {found.seconds:.6f} {found.timestamp:.3f}'
        yield f'{name}_bucket{{{pairs}{comma}le="{bound}"}} {count}{more}'
    yield f"{name}_sum{_braced(pairs)} {seconds_in(counts):.6f}"
    yield f"{name}_count{_braced(pairs)} {calls}"


def _pairs(names: tuple[str, ...], values: Series) -> str:
    safe = [value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for value in values]
    return ",".join([f'{name}="{value}"' for name, value in zip(names, safe, strict=True)])


def _braced(pairs: str) -> str:
    return f"{{{pairs}}}" if pairs else ""
