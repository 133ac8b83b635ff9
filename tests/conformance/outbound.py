"""The suite's client scenarios, with the gateway for the client: is what it sends to servers right?

Knows: which scenarios concern a gateway that serves tools, and at which revision each is played. Refuses to know: how
the suite judges.

    python -m tests.conformance.outbound [--scenario http-custom-headers] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.conformance import suite
from tests.conformance.run import folder, print_outcomes
from tests.conformance.verdict import judge

SCENARIOS = (
    ("2025-11-25", "initialize"),
    ("2025-11-25", "tools_call"),
    ("2025-11-25", "sse-retry"),
    ("2025-11-25", "json-schema-2020-12-preservation"),
    ("2026-07-28", "tools_call"),
    ("2026-07-28", "request-metadata"),
    ("2026-07-28", "http-standard-headers"),
    ("2026-07-28", "http-custom-headers"),
    ("2026-07-28", "http-invalid-tool-headers"),
    ("2026-07-28", "json-schema-2020-12-preservation"),
    ("2026-07-28", "json-schema-ref-no-deref"),
    ("2025-11-25", "auth/pre-registration"),
    ("2025-11-25", "auth/client-credentials-basic"),
    ("2025-11-25", "auth/client-credentials-jwt"),
    ("2026-07-28", "auth/pre-registration"),
    ("2026-07-28", "auth/client-credentials-basic"),
    ("2026-07-28", "auth/client-credentials-jwt"),
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.outbound", description="The gateway as a client")
    parser.add_argument("--scenario", choices=sorted({name for _, name in SCENARIOS}))
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep results and logs there")
    options = parser.parse_args(argv)
    suite.prepare()
    passed = failed = 0
    print(f"{'suite':20} {'scenario':40} passed failed excused other")
    with folder(options.keep) as place:
        for revision, name in SCENARIOS:
            if options.scenario not in (None, name):
                continue
            command = f"{sys.executable} -m tests.conformance.agent"
            try:
                checks = suite.client_test(command, revision, place / f"{revision}-{name.replace('/', '-')}", name)
            except suite.SuiteError as error:
                checks = [{"id": name, "status": "FAILURE", "errorMessage": str(error)}]
            outcome = judge(name, checks, [])
            print_outcomes(revision, [outcome])
            passed += len(outcome.passed)
            failed += len(outcome.failed)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
