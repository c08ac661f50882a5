"""A state directory that takes no changes any more: status says so, until it takes them again."""
import contextlib
import os
import shutil
import signal
import subprocess
import time

from duplex import KIB, MIB, Array, Skip, needs, sh
from marks import slow
from test_mirrors import mirror, read, with_volumes, write

STOP_LIMIT_S = 20        # docs/CONFIG.md


@contextlib.contextmanager
def small_state(array, size):
    """The state directory on a file system of its own."""
    needs("mount", "umount")
    os.mkdir(array.state)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", array.state],
                             capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        raise Skip("mount of a tmpfs: " + mounted.stderr.strip())
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            array.kill()
        subprocess.run(["umount", array.state], check=True)


def in_trouble(array, *words):
    """The first line of status is an error that names the state directory and holds `words`."""
    status = array.do("status")
    line = status["lines"][0]
    assert not status["ok"] and line["severity"] == "error", status
    assert array.state in line["text"] and line["next"], line
    for word in words:
        assert word in line["text"] + line["next"], (word, line)
    check = array.run("status", "--check", check=1)
    assert array.state in check.out, check.out


def is_well(array):
    assert array.do("status")["ok"], array.do("status")
    array.run("status", "--check", check=0)


def create_until_refused(array):
    """A full file system may leave a little room in the files of the state."""
    for number in range(1000):
        if array.run("volume", "create", f"v{number}", "--size", "1M").code != 0:
            return
    raise AssertionError("nothing is refused")


def test_a_full_state_directory_is_an_error_until_a_change_is_stored(build):
    with Array(build) as array, small_state(array, "4M"):
        array.with_volume()
        is_well(array)
        with open(os.path.join(array.state, "ballast"), "wb", buffering=0) as ballast:
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(bytes(4 * KIB))
        create_until_refused(array)
        in_trouble(array, "make room")
        os.remove(os.path.join(array.state, "ballast"))
        array.do("volume", "create", "after", "--size", "1M")
        is_well(array)
        assert "state_unwritable" in array.log_text()
        codes = [event["code"] for event in array.do("event", "list")]
        assert "state_writable" in codes, codes
        array.stop()


def test_a_full_state_directory_does_not_hold_up_the_stop(build):
    with Array(build) as array, small_state(array, "4M"):
        array.with_volume()
        with open(os.path.join(array.state, "ballast"), "wb", buffering=0) as ballast:
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(bytes(4 * KIB))
        create_until_refused(array)
        array.stop()
        array.check_log()
        os.remove(os.path.join(array.state, "ballast"))
        array.start()
        is_well(array)


def test_a_start_without_space_for_the_state_says_that_it_has_to_be_started_again(build):
    """Mutation: start_error() hands on the next step of an array that runs."""
    with Array(build) as array, small_state(array, "16M"):
        array.with_volume()
        array.do("volume", "create", "copy", "--size", "64M")
        array.do("mirror", "create", "m", "vol", "copy", "--wait")
        array.kill()
        with open(os.path.join(array.state, "ballast"), "wb", buffering=0) as ballast:
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(bytes(4 * KIB))
        code, said = array.refuse_start()
        assert code == 1 and "full file system" in said, said
        assert said.endswith("next: free space there, then start duplexd again\n"), said
        os.remove(os.path.join(array.state, "ballast"))
        array.start()
        assert array.do("mirror", "show", "m")["state"] in ("SYNC", "COPYING")
        array.stop()


def test_a_deleted_state_directory_is_an_error_and_can_be_rebuilt(build):
    with Array(build) as array:
        array.with_volume()
        is_well(array)
        shutil.rmtree(array.state)
        array.refused("volume", "create", "lost", "--size", "1M")
        in_trouble(array, "is gone", "--rebuild")
        array.stop()
        array.start("--rebuild", "--device", array.path("disk0"))
        is_well(array)
        names = [volume["name"] for volume in array.do("volume", "list")]
        assert names == ["vol"], names


def test_an_old_copy_is_refused_though_only_mapped_extents_were_written(build):
    """The copy does not know what was written after the split; a resync from it would copy nothing.
    Mutation: PoolImpl::begin_life() does nothing."""
    with with_volumes(Array(build), "p", "s") as array:
        array.do("device", "add", array.path("disk1"), "--name", "disk1", "--size", "1G")
        write(array, "p", b"a" * 8 * MIB)
        array.do("mirror", "create", "m", "p", "s", "--wait")
        array.do("split", "m")
        array.stop()
        good, old = array.state + ".good", array.state + ".old"
        shutil.copytree(array.state, old)
        array.start()
        write(array, "p", b"b" * 4 * MIB)
        assert mirror(array, "m")["changed_bytes_source"] == 4 * MIB, mirror(array, "m")
        array.stop()
        os.rename(array.state, good)
        shutil.copytree(old, array.state)
        code, said = array.refuse_start()
        assert code == 1, said
        assert "is older than device disk0" in said and "--rebuild --device" in said, said
        # The right one goes on as if nothing had been tried.
        shutil.rmtree(array.state)
        shutil.copytree(good, array.state)
        array.start()
        array.do("mirror", "resync", "m", "--wait")
        array.do("mirror", "verify", "m", "--wait")
        array.stop()
        # Without it: what RECOVERY.md says.
        shutil.rmtree(array.state)
        array.start("--rebuild", "--device", array.path("disk0"))
        assert array.do("mirror", "list") == []
        for volume in ("p", "s"):
            assert read(array, volume, 8 * MIB) == b"b" * 4 * MIB + b"a" * 4 * MIB, volume
        array.stop()
        array.start()
        array.stop()
        # And a copy from before the rebuild is history as well.
        shutil.rmtree(array.state)
        os.rename(good, array.state)
        code, said = array.refuse_start()
        assert code == 1 and "rebuilt" in said, said
        array.check_log()


HANGING = """
#include <unistd.h>
int fdatasync(int fd) {
  (void)fd;
  while (access("%s", F_OK) == 0) usleep(10000);
  return 0;
}
"""


@slow
def test_a_stop_that_hangs_ends_with_an_error_that_says_where(build):
    """The disk of the state directory does not answer any more."""
    needs("clang-19")
    with open(build.duplexd, "rb") as file:
        if b"__asan_init" in (text := file.read()) or b"__tsan_init" in text:
            raise Skip("a sanitizer wants to be the first library")
    with Array(build) as array:
        flag, source, library = (array.path(name) for name in ("hang", "hang.c", "hang.so"))
        with open(source, "w", encoding="ascii") as file:
            file.write(HANGING % flag)
        sh("clang-19", "-shared", "-fPIC", "-o", library, source)
        array.start(env={**os.environ, "LD_PRELOAD": library})
        array.do("device", "add", array.path("disk0"), "--name", "disk0", "--size", "512M")
        with open(flag, "wb"):
            pass
        start = time.monotonic()
        array.process.send_signal(signal.SIGTERM)
        code, took = array.process.wait(STOP_LIMIT_S + 10), time.monotonic() - start
        array.kill()
        assert code == 1 and took > STOP_LIMIT_S - 1, f"it ended with {code} after {took:.1f} s"
        assert "still waits for jobs, devices and the state directory" in array.log_text()
        os.remove(flag)
        array.start()
        assert [device["name"] for device in array.do("device", "list")] == ["disk0"]
        array.stop()
