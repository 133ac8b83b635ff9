"""What a server proposes while an argument is typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mcp.server.mcpserver import MCPServer
from mcp_types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

LIMIT = 100  # values

Propose = Callable[[str, str, dict[str, str]], Iterable[str]]
"""The name of a prompt or the text of a template, an argument, the other arguments -> everything there is to choose."""


def complete_from(server: MCPServer, propose: Propose) -> None:
    """Let the server complete arguments from what `propose` knows: those values that begin with what was typed."""

    async def answer(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion:
        asked = ref.name if isinstance(ref, PromptReference) else ref.uri
        others = (context.arguments if context else None) or {}
        fitting = [one for one in propose(asked, argument.name, others) if one.startswith(argument.value)]
        return Completion(values=fitting[:LIMIT], total=len(fitting), has_more=len(fitting) > LIMIT)

    server.completion()(answer)  # type: ignore[no-untyped-call]  # the SDK gives it no types
