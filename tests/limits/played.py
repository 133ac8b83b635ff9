"""The script on a real server, at hours that a test plays.

In production the script takes its time from the server and from nowhere else (`TIMED`). Here these two lines, which
must stand there once, are replaced by a second argument. Keys are kept (PERSIST) however little time they were given:
time that is played is none for the server.
"""

from __future__ import annotations

from collections.abc import Iterable

import redis

from fastgw.limits.script import SOURCE, ScriptReply, ScriptRequest, StoreKeys, decode, encode

TIMED = "local time = redis.call('TIME')\nlocal now = time[1] * 1000000 + time[2]\n"
PLAYED = "local now = tonumber(ARGV[2])\n"
Step = tuple[ScriptRequest, str, int]
"""A question, whose it is, and when it is asked (microseconds)."""


def with_played_time(source: str) -> str:
    """The script with a clock set from outside."""
    assert source.count(TIMED) == 1
    assert source.count("'TIME'") == 1
    assert "os." not in source
    return source.replace(TIMED, PLAYED)


class Played:
    """The script of one deployment."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self.client, self.keys = client, StoreKeys(prefix)
        self._digest = client.script_load(with_played_time(SOURCE))

    def ask(self, request: ScriptRequest, worker: str = "w1", now: int = 0) -> ScriptReply:
        """One answer."""
        return self.ask_all([(request, worker, now)])[0]

    def ask_all(self, steps: Iterable[Step]) -> list[ScriptReply]:
        """The answers to all, asked one after another and sent together."""
        asked = list(steps)
        with self.client.pipeline(transaction=False) as pipeline:
            for request, worker, now in asked:
                keys = self.keys.of(request)
                argument = encode(request, worker, "first")
                pipeline.evalsha(self._digest, len(keys), *keys, argument, now)
                for row in request.rows:
                    pipeline.persist(row.key)
            answers = [answer for answer in pipeline.execute() if isinstance(answer, bytes)]
        return [decode(answer, request) for answer, (request, *_) in zip(answers, asked, strict=True)]
