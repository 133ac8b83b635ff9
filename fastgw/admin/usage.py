"""`/usage` on the admin port: the questions of `fastgw usage`, answered by a short-lived process of low priority, so
that nothing else here waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from aiohttp import web

from fastgw.admin.orders import answer
from fastgw.usage.answers import Asked
from fastgw.usage.questions import Question, question

AT_ONCE = 2
"""Questions that are being answered; others wait."""
WITHIN = 30.0
"""Seconds for an answer, waiting included."""


class OperatorUsage:
    """Usage, as operators ask for it.

    Args:
        folder: `data/usage`.
        aliases: those of servers now, by their names.
        now: Unix seconds.
        within: seconds for an answer.
    """

    def __init__(
        self, folder: Path, aliases: Callable[[], dict[str, str]], now: Callable[[], float], within: float = WITHIN
    ) -> None:
        self._folder = folder
        self._aliases = aliases
        self._now = now
        self._within = within
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """200 with a list of objects; 400, 409 or 503 with words under `error`."""
        status, found = await self.answered({name: request.query.getall(name) for name in request.query})
        if isinstance(found, str):
            return answer({"error": found}, status)
        headers = {"content-type": "application/json", "cache-control": "no-store"}
        return web.Response(body=found, headers=headers)

    async def answered(self, parameters: Mapping[str, Sequence[str]]) -> tuple[int, bytes | str]:
        """200 and a list of objects, as JSON; or 400, 409 or 503 and words."""
        try:
            asked = question(parameters, datetime.datetime.fromtimestamp(self._now(), datetime.UTC).date())
        except ValueError as wrong:
            return 400, str(wrong)
        try:
            async with asyncio.timeout(self._within), self._turns:
                status, text = await self._ask(asked)
        except TimeoutError:
            return 503, f"no answer within {self._within:g} s: ask for less time, or fewer keys"
        except OSError as wrong:  # no room for its files, or for another process
            return 503, f"it cannot be asked now: {wrong}"
        return (200, text) if status == 0 else (409, text.decode("utf-8", "replace").strip())

    async def _ask(self, asked: Question) -> tuple[int, bytes]:
        """Exit status of the program, and what it says, or says is wrong."""
        order = msgspec.json.encode(Asked(str(self._folder), asked, self._aliases()))
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "fastgw.usage.answers")
        # Its files are ours to remove: killed, it would leave them.
        with tempfile.TemporaryDirectory(prefix=f"fastgw-{os.getpid()}-", ignore_cleanup_errors=True) as spill:
            around = {**os.environ, "TMPDIR": spill}
            process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=around)
            try:
                said, wrong = await process.communicate(order)
            except asyncio.CancelledError:  # its time is over, or nobody waits for it any more
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.communicate()
                raise
        return process.returncode or 0, said or wrong
