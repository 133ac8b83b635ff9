"""The seam between the path of a call and a way to a server."""

from __future__ import annotations

from typing import Protocol

from fastgw.upstream.call_context import Attempt
from fastgw.upstream.reply import UpstreamReply


class Transport(Protocol):
    """How calls get to one address of a server, and the server's messages back.

    A transport gives the server one attempt - in its era and session, with its credential, within what is left of its
    deadlines - and comes back with the messages of the answer as soon as there is one. What the answer means stands in
    `UpstreamReply.classified`: anything but RELAY is for the caller to mend, who then sends the attempt again. It
    never sends anything twice by itself. Cancelled while it waits, it withdraws the call.

    Streamable HTTP (`streamable_http.py`) is one; others stand beside it and are chosen in `instances.py`.
    """

    async def send(self, attempt: Attempt) -> UpstreamReply:
        """Give the call to the server and wait until it begins to answer.

        Raises:
            Fault: `sent` says whether the server may have run the call; BAD_PARAMS for arguments that cannot be sent.
        """

    async def close(self) -> None:
        """Close every connection; what is under way is LOST."""
