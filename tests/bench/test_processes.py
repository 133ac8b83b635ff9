"""The accounting sees what a tree spends: its own time, a child's, and that of a child which died."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from bench import processes

pytestmark = pytest.mark.skipif(not processes.PROC.joinpath("self/stat").exists(), reason="there is no /proc")

BURN = """
import time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
"""


def parent(script: str) -> subprocess.Popen[str]:
    """A process that runs the script with `burn` at hand and talks by lines."""
    return subprocess.Popen(
        [sys.executable, "-c", BURN + script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def talk() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes put here are ended."""
    made: list[subprocess.Popen[str]] = []
    yield made
    for one in made:
        one.kill()
        one.communicate()


def say(process: subprocess.Popen[str], word: str) -> str:
    """Send a line, wait for one."""
    assert process.stdin and process.stdout
    process.stdin.write(word + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


CHILD = """
import os, sys
ours, theirs = os.pipe()
back, out = os.pipe()
pid = os.fork()
if pid == 0:
    # The parent's death must be the end of both pipes here, else this process outlives the test.
    os.close(theirs)
    os.close(back)
    os.read(ours, 1)
    burn(0.3)
    os.write(out, b'.')
    os.read(ours, 1)
    os._exit(0)
for line in sys.stdin:
    if line == 'burn\\n':
        os.write(theirs, b'.')
        os.read(back, 1)
    if line == 'reap\\n':
        os.write(theirs, b'.')
        os.waitpid(pid, 0)
    print(pid, flush=True)
"""


def test_a_busy_child_is_seen(talk: list[subprocess.Popen[str]]) -> None:
    one = parent(CHILD)
    talk.append(one)
    child = int(say(one, "hello"))
    before = processes.read(one.pid)
    say(one, "burn")
    after = processes.read(one.pid)
    assert {pid for pid, _ in after.members} == {one.pid, child}
    assert 0.25 <= processes.spent(before, after) <= 0.6


def test_an_idle_tree_costs_nothing(talk: list[subprocess.Popen[str]]) -> None:
    one = parent(CHILD)
    talk.append(one)
    say(one, "hello")
    before = processes.read(one.pid)
    say(one, "nothing")
    assert processes.spent(before, processes.read(one.pid)) <= 0.05


def test_a_dying_child_does_not_take_its_time_with_it(talk: list[subprocess.Popen[str]]) -> None:
    one = parent(CHILD)
    talk.append(one)
    say(one, "hello")
    say(one, "burn")
    before = processes.read(one.pid)
    child = int(say(one, "reap"))
    after = processes.read(one.pid)
    assert child not in {pid for pid, _ in after.members}
    assert after.seconds >= before.seconds


def test_a_child_that_ended_while_measured_voids_the_measurement(talk: list[subprocess.Popen[str]]) -> None:
    one = parent(CHILD)
    talk.append(one)
    say(one, "hello")
    before = processes.read(one.pid)
    say(one, "burn")
    child = say(one, "reap")
    with pytest.raises(processes.LostProcess, match=child):
        processes.spent(before, processes.read(one.pid))


def test_a_dead_root_is_told(talk: list[subprocess.Popen[str]]) -> None:
    one = parent("")
    one.communicate()
    with pytest.raises(processes.LostProcess):
        processes.read(one.pid)
