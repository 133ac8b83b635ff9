"""`python -m tests.conformance`: see `run.py`."""

from __future__ import annotations

import sys

from tests.conformance.run import main

sys.exit(main())
