"""Where the store is: every form of its address, and what goes with which."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgw.config.reader import read_settings
from fastgw.config.schema.settings import Settings
from fastgw.config.schema.store import StorePlace, StoreSettings
from fastgw.config.tree import ConfigError
from fastgw.processes.plan import FIXED, Plan, plan_of
from tests.upstream.test_tls import Authority

ENVIRON = {"SECRET": "sixteen letters.", "PASSWORD": "hush-1", "OTHER": "hush-2"}


def place(url: str, workers: int = 1) -> StorePlace:
    return StoreSettings(url=url).place(workers)


@pytest.mark.parametrize(
    ("url", "workers", "kind"),
    [
        ("auto", 1, "memory"),
        ("auto", 2, "embedded"),
        ("memory", 1, "memory"),
        ("embedded", 1, "embedded"),
        ("embedded", 8, "embedded"),
    ],
)
def test_on_this_machine(url: str, workers: int, kind: str) -> None:
    assert place(url, workers) == StorePlace(kind=kind)  # type: ignore[arg-type]
    assert not StoreSettings(url=url).beyond_one_machine


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis://h", StorePlace("single", (("h", 6379),))),
        ("redis://h/", StorePlace("single", (("h", 6379),))),
        ("redis://10.0.0.1:7000/3", StorePlace("single", (("10.0.0.1", 7000),), 3)),
        ("rediss://cache_1.example:6380/0", StorePlace("single", (("cache_1.example", 6380),), tls=True)),
        ("redis://[::1]:7000", StorePlace("single", (("::1", 7000),))),
        ("redis+cluster://a,b:7000", StorePlace("cluster", (("a", 6379), ("b", 7000)))),
        ("rediss+cluster://[::1]", StorePlace("cluster", (("::1", 6379),), tls=True)),
        ("redis+sentinel://a,b:1/mine", StorePlace("sentinel", (("a", 26379), ("b", 1)), name="mine")),
        ("rediss+sentinel://a/my-1.x/2", StorePlace("sentinel", (("a", 26379),), 2, "my-1.x", tls=True)),
    ],
)
def test_elsewhere(url: str, found: StorePlace) -> None:
    assert place(url) == found == place(url, 4)
    assert StoreSettings(url=url).beyond_one_machine


@pytest.mark.parametrize(
    "url",
    ["", "redis", "redis:h", "redis://", "redis://:6379", "redis://h:0", "redis://h:", "redis://h/0/1", "redis://h/-1",
     "redis://h/ 1", "redis://h\n", "redis://h/0\n", "redis://h#x", "redis+cluster://a;b", "redis+sentinel://a/",
     "redis+sentinel://a/x y", "redis+sentinel://a/n/x", "redis+other://a", "REDIS://h", "redis://[a]", "auto\n"],
)  # fmt: skip
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        StoreSettings(url=url)


FILE = """
secret: "${env:SECRET}"
workers: 3
store:
  url: rediss+sentinel://a,b/mine
  username: me
  password: "${env:PASSWORD}"
  ca: ca.pem
  prefix: blue
  sentinel_username: watcher
  sentinel_password: "${env:OTHER}"
"""


def test_all_that_is_shown_to_it(tmp_path: Path) -> None:
    file = tmp_path / "fastgw.yaml"
    file.write_text(FILE, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"fastgw.yaml:8:7: the file .*ca.pem cannot be read"):
        read_settings(file, ENVIRON)
    (tmp_path / "ca.pem").write_text("nothing", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no certificate"):
        read_settings(file, ENVIRON)
    Authority(tmp_path, "ca")
    plan = plan_of(read_settings(file, ENVIRON))
    assert plan.store == StorePlace(
        "sentinel",
        (("a", 26379), ("b", 26379)),
        name="mine",
        tls=True,
        ca=str(tmp_path / "ca.pem"),
        username="me",
        password="hush-1",
        sentinel_username="watcher",
        sentinel_password="hush-2",
        prefix="blue",
    )
    assert "hush" not in repr(plan)


def test_the_plan_has_it_and_a_reload_does_not_change_it() -> None:
    assert Plan(("h", 1), ("h", 2), Path()).store == StorePlace("memory")
    assert plan_of(Settings()).store.kind == "memory"
    assert plan_of(Settings(workers=2)).store.kind == "embedded"
    assert "store" in FIXED


def test_a_password_goes_without_a_name() -> None:
    store = StoreSettings(url="redis://h", password="hush")
    assert store.place(1) == StorePlace("single", (("h", 6379),), password="hush")
    assert "hush" not in repr(store.place(1))
