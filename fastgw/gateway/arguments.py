"""What the operator has settled about a tool's arguments, done to those of one call."""

from __future__ import annotations

from fastgw.catalog import validation
from fastgw.catalog.route import Arm, Checks, filled
from fastgw.errors import Fault, Kind
from fastgw.protocol.envelope import NotAMessage, NotJson
from fastgw.protocol.results import Result
from fastgw.upstream.modern import renamed


def prepare_arguments(arm: Arm, arguments: bytes) -> bytes:
    """The arguments as they are sent: checked as the agent wrote them, then filled in.

    Raises:
        Fault: BAD_PARAMS where they do not fit the schema that agents are shown, or name what is not theirs to say;
            NO_SERVER while that schema is not known yet.
    """
    checks, wrong = arm.checks, None
    if checks is not None and checks.pending:
        raise Fault(Kind.NO_SERVER, detail="its schema is not known yet", data={"reason": "down"}, retry_after=1)
    if checks is not None and checks.arguments is not None:
        wrong = validation.check_arguments(checks.arguments, arguments)
    if wrong is None:
        try:
            return filled(arguments, arm.fixed, arm.defaults) if arm.fixed or arm.defaults else arguments
        except (NotAMessage, NotJson) as unfit:
            wrong = str(unfit)
    raise Fault(Kind.BAD_PARAMS, f"Invalid arguments: {wrong}")


def sendable(arm: Arm, arguments: bytes) -> bytes:
    """As `prepare_arguments`, where nothing is sent: also whether the server's own names for them leave room."""
    found = prepare_arguments(arm, arguments)
    try:
        renamed(found, arm.target.renamed if arm.targets else ())
    except (NotAMessage, NotJson) as unfit:
        raise Fault(Kind.BAD_PARAMS, f"Invalid arguments: {unfit}") from None
    return found


def check_result(checks: Checks, result: Result) -> None:
    """Raises a Fault, LOST, for a result that is not what its tool has promised, where the operator wants that checked.

    What a tool says of its own failure is not checked.
    """
    if checks.results is None or result.is_error:
        return
    wrong = validation.check_result(checks.results, result.members.get("structuredContent"))
    if wrong is not None:
        raise Fault(Kind.LOST, "The tool's result is not what its schema promises", detail=wrong, sent=True)
