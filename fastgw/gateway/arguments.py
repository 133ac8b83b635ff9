"""What the operator has settled about a tool's arguments, done to those of one call."""

from __future__ import annotations

from fastgw.catalog import validation
from fastgw.catalog.arms import filled
from fastgw.catalog.route import Arm
from fastgw.errors import Fault, Kind
from fastgw.protocol.envelope import NotAMessage, NotJson
from fastgw.protocol.results import Result
from fastgw.upstream.modern import renamed


def settled(arm: Arm, arguments: bytes) -> bytes:
    """The arguments as they are sent: checked as the agent wrote them, then filled in.

    Raises:
        Fault: BAD_PARAMS where they do not fit the schema that agents are shown, or name what is not theirs to say;
            NO_SERVER while that schema is not known yet.
    """
    if arm.checks is not None and arm.checks.pending:
        raise Fault(Kind.NO_SERVER, detail="its schema is not known yet", data={"reason": "down"}, retry_after=1)
    if arm.checks is not None and arm.checks.arguments is not None:
        wrong = validation.check_arguments(arm.checks.arguments, arguments)
        if wrong is not None:
            raise Fault(Kind.BAD_PARAMS, f"Invalid arguments: {wrong}")
    if not (arm.fixed or arm.defaults):
        return arguments
    try:
        return filled(arguments, arm.fixed, arm.defaults)
    except (NotAMessage, NotJson) as unfit:
        raise Fault(Kind.BAD_PARAMS, f"Invalid arguments: {unfit}") from None


def sendable(arm: Arm, arguments: bytes) -> bytes:
    """As `settled`, where nothing is sent: also whether the server's own names for them leave room.

    Raises:
        Fault: as `settled`.
    """
    found = settled(arm, arguments)
    try:
        renamed(found, arm.targets[0].renamed if arm.targets else ())
    except (NotAMessage, NotJson) as unfit:
        raise Fault(Kind.BAD_PARAMS, f"Invalid arguments: {unfit}") from None
    return found


def checked(arm: Arm | None, result: Result) -> None:
    """Make sure that a result is what its tool has promised, where the operator wants that checked.

    Raises:
        Fault: LOST where it is not. What a tool says of its own failure is not checked.
    """
    if arm is None or arm.checks is None or arm.checks.results is None or result.is_error:
        return
    wrong = validation.check_result(arm.checks.results, result.members.get("structuredContent"))
    if wrong is not None:
        raise Fault(Kind.LOST, "The tool's result is not what its schema promises", detail=wrong, sent=True)
