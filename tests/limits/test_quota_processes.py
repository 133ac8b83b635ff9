"""Eight worker processes, one real store, one quota of calls: never more than it in all, and nearly all of it."""

from __future__ import annotations

from tests.forking import forkserver
from tests.limits import quota_process
from tests.limits.loads import place_at
from tests.limits.quota_process import Hammering
from tests.limits.valkeys import Valkey

WORKERS, AMOUNT, TRIES = 8, 1500, 40
PATIENCE = 60.0  # seconds


def test_eight_processes_never_exceed_a_quota_of_calls() -> None:
    context = forkserver()
    pipes = [context.Pipe() for _ in range(WORKERS)]
    processes = [context.Process(target=quota_process.main, args=(theirs,), daemon=True) for _, theirs in pipes]
    with Valkey() as server:
        try:
            for at, (process, (ours, theirs)) in enumerate(zip(processes, pipes, strict=True)):
                process.start()
                theirs.close()
                ours.send(Hammering(place_at(server.url), f"w{at}", AMOUNT, TRIES))
            for word in ("ready", None):
                heard = [ours.recv() for ours, _ in pipes if ours.poll(PATIENCE)]
                assert len(heard) == WORKERS, word
                for ours, _ in pipes if word else ():
                    ours.send("go")
        finally:
            for process in processes:
                process.kill()
                process.join()
    assert all(heard)
    assert 0.97 * AMOUNT <= sum(heard) <= AMOUNT
