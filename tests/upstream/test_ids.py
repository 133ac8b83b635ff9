"""Our ids towards servers: integers no other request has, known again however a server writes them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastgw.upstream.classify import is_out_of_step, new_id, same_id

OURS = b"12"


FORKS = """
import os
from fastgw.upstream.classify import new_id
for _ in range(3):
    if os.fork() == 0:
        os.write(1, b"%d %d " % (int(new_id()), int(new_id())))
        os._exit(0)
    os.wait()
"""


def test_an_id_is_a_whole_number_that_every_reader_of_json_keeps() -> None:
    made = [int(new_id()) for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(0 < one < 2**53 and int(float(one)) == one for one in made)


def test_processes_that_were_forked_from_one_have_ids_of_their_own() -> None:
    said = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, check=True, timeout=30).stdout.split()
    assert len(set(said)) == len(said) == 6


@pytest.mark.parametrize("found", [b"12", b'"12"', b"12.0", b"1.2e1", b"12e0", b'"\\u0031\\u0032"', b" 12"])
def test_our_id_is_known_however_a_server_writes_it(found: bytes) -> None:
    assert same_id(found, OURS)


@pytest.mark.parametrize(
    "found",
    [
        None, b"null", b"13", b"-12", b"12.5", b'"x"', b'""', b'"12x"', b'"0x0c"', b"[12]", b'{"id":12}', b"", b"12,",
        b"true", b"1e400", b'"inf"', b'"nan"', b"NaN", b'"' + b"0" * 100 + b'12"', b"[" * 60,
    ],
)  # fmt: skip
def test_what_is_not_our_id(found: bytes | None) -> None:
    assert not same_id(found, OURS)


def test_neighbouring_ids_are_not_confused() -> None:
    """Where a number becomes a float, none of ours may become another."""
    largest = 2**53 - 2
    for near in (largest - 1, largest + 1):
        assert not same_id(b"%d" % near, b"%d" % largest)
        assert not same_id(b"%d.0" % near, b"%d" % largest)
    assert same_id(b"%d.0" % largest, b"%d" % largest)


def test_ids_of_this_process_are_told_from_others() -> None:
    earlier, later = new_id(), new_id()
    elsewhere = b"%d" % (int(earlier) ^ (1 << 40))
    assert is_out_of_step(400, earlier, later)
    assert is_out_of_step(400, b'"%s"' % earlier, later)
    for other in (elsewhere, b'"server-error"', b"null", b"1.5"):
        assert not is_out_of_step(400, other, later)
