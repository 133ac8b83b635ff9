"""Workers as real processes (`worker.py`), and what all of them let through together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from fastgw.config.schema.store import StorePlace
from fastgw.policy.bucket import MICROS, bucket_rate
from tests.forking import forkserver
from tests.limits import worker
from tests.limits.models import Spent
from tests.limits.worker import MOST, RATES, Record, Task

PATIENCE = 30.0  # seconds


class Crowd:
    """So many worker processes, that do one task after another."""

    def __init__(self, count: int) -> None:
        context = forkserver()
        pairs = [context.Pipe() for _ in range(count)]
        self.pipes = [ours for ours, _ in pairs]
        self.processes = [context.Process(target=worker.main, args=(theirs,), daemon=True) for _, theirs in pairs]
        for process, (_, theirs) in zip(self.processes, pairs, strict=True):
            process.start()
            theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process, pipe in zip(self.processes, self.pipes, strict=True):
            process.kill()
            process.join()
            pipe.close()

    def work(self, place: StorePlace, seconds: float) -> Together:
        """All of them work at the same time; what they wrote down."""
        for at, pipe in enumerate(self.pipes):
            pipe.send(Task(f"w{at}", place, seconds))
        for at in range(len(self.pipes)):
            assert self.hear(at) == "ready"
        for pipe in self.pipes:
            pipe.send("go")
        return Together([self.hear(at, seconds + PATIENCE) for at in range(len(self.pipes))])

    def hear(self, at: int, within: float = PATIENCE) -> Any:
        """What a worker says next."""
        assert self.pipes[at].poll(within), "a worker says nothing"
        return self.pipes[at].recv()


@dataclass
class Together:
    """What all workers wrote down."""

    records: list[Record]

    @property
    def hows(self) -> Counter[str]:
        """Verdicts by who decided."""
        return sum((record.hows for record in self.records), Counter())

    @property
    def errors(self) -> Counter[str]:
        """Of the store."""
        return sum((record.errors for record in self.records), Counter())

    def passed(self) -> dict[str, list[float]]:
        """By bucket, when each token was taken by anybody."""
        found: dict[str, list[float]] = {}
        for record in self.records:
            for bucket, times in record.passed.items():
                found.setdefault(bucket, []).extend(times)
        return {bucket: sorted(times) for bucket, times in sorted(found.items())}

    def ratios(self) -> dict[str, float]:
        """By bucket, what was let through by what might have been, from the first call to the last."""
        found = {}
        for bucket, times in self.passed().items():
            calls, seconds, burst = rate(bucket)
            found[bucket] = len(times) / (burst + calls / seconds * (times[-1] - times[0]))
        return found

    def exactness(self) -> tuple[float, float]:
        """What `all` let through, by its rate, between the first call and the last that found it empty: at least, and
        at most, since verdicts are written down up to `late` after they were given."""
        calls, seconds, _ = RATES["all"]
        rate, late = calls / seconds, max(record.slowest for record in self.records)
        refused = [at for record in self.records for at in record.refused]
        first, last = min(refused), max(refused)
        count = sum(first + late < at <= last for at in self.passed()["('all', None)"])
        return (count - 1) / (rate * (last - first)), (count + 1) / (rate * max(0.001, last - first - 2 * late))

    def check_windows(self) -> None:
        """In no stretch of time more than a burst and what the stretch gives back."""
        late = Fraction(max(record.slowest for record in self.records))
        for bucket, times in self.passed().items():
            calls, seconds, burst = rate(bucket)
            spent = Spent(bucket_rate(calls, seconds, burst), burst)
            spent.allowed += Fraction(calls, seconds) * late  # a verdict may be written down late
            for at in times:
                spent.add(int(at * MICROS), 1)
            spent.check()

    def at_the_same_time(self) -> dict[str, int]:
        """By limit, the most calls that ran at once anywhere."""
        found = {}
        for limit in MOST:
            ran = [one for record in self.records for one in record.ran.get(limit, [])]
            moments = sorted([(began, 1) for began, _ in ran] + [(ended, -1) for _, ended in ran])
            now = most = 0
            for _, step in moments:
                now += step
                most = max(most, now)
            found[limit] = most
        return found

    def __str__(self) -> str:
        ratios = ", ".join(f"{bucket} {ratio:.4f}" for bucket, ratio in self.ratios().items())
        slowest = 1000 * max(record.slowest for record in self.records)
        p99 = 1000 * max(record.p99 for record in self.records)
        return (
            f"{dict(self.hows)} {dict(self.errors)} at once {self.at_the_same_time()} "
            f"p99 {p99:.1f} ms, slowest {slowest:.1f} ms, exactness {self.exactness()}\n  {ratios}"
        )


def rate(bucket: str) -> tuple[int, int, int]:
    """Calls, seconds, burst of a bucket by its name."""
    return next(found for limit, found in RATES.items() if bucket.startswith(f"('{limit}'"))
