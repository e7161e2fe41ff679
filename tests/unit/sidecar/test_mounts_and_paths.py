"""Whether Persist is a mount is told by the kernel's table; a path that a user types is a path in the home."""

from __future__ import annotations

import pytest

from sidecar.archive import home_path
from sidecar.backup.mounts import is_mount_point, mount_points
from sidecar.config import Settings
from sidecar.errors import UsageError

_TABLE = b"""\
24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 24 0:33 /users/a /home/jovyan/Persist rw,relatime shared:5 - nfs4 server:/x rw
37 24 0:34 / /mnt/with\\040space\\134and\\011tab\\012line rw - tmpfs none rw
38 24 0:35 / /mnt/caf\xc3\xa9 rw - tmpfs none rw

broken
"""


def test_mount_points_are_read_with_their_escapes() -> None:
    assert set(mount_points(_TABLE)) == {
        b"/",
        b"/home/jovyan/Persist",
        b"/mnt/with space\\and\ttab\nline",
        "/mnt/café".encode(),
    }


@pytest.mark.parametrize(
    ("path", "is_one"), [("/proc", True), ("/proc/", True), ("/proc/self", False), ("/nowhere", False)]
)
def test_a_mount_is_the_place_itself_and_not_what_lies_in_it(path: str, is_one: bool) -> None:
    assert is_mount_point(path) is is_one


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a.txt", b"a.txt"),
        ("./a//b/../c", b"a/c"),
        ("/home/jovyan/a.txt", b"a.txt"),
        ("/home/jovyan", b""),
        (".", b""),
        ("-rf", b"-rf"),
        ("caf\udcff", b"caf\xff"),
    ],
)
def test_a_path_is_relative_to_the_home_or_absolute_below_it(text: str, path: bytes) -> None:
    assert home_path(Settings(home="/home/jovyan", persist="/p"), text) == path


@pytest.mark.parametrize("text", ["..", "../x", "a/../../x", "/home/jovyanx/a", "/etc/passwd", "/"])
def test_a_path_outside_of_the_home_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        home_path(Settings(home="/home/jovyan", persist="/p"), text)
