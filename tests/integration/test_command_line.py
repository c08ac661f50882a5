"""What people type by mistake: refused with cause and next step, before the array is asked."""
import os
import subprocess

from duplex import KIB, MIB, Array
from test_lifecycle import expect
from test_mirrors import mirror, wait_for, with_volumes, write


def raw(array, *words, stdin=subprocess.DEVNULL):
    """Exit code and stderr; words may be any bytes."""
    done = subprocess.run([array.build.duplex, "--api", "unix:" + array.api, *words], stdin=stdin,
                          capture_output=True, timeout=60, check=False)
    return done.returncode, done.stderr.decode(errors="replace")


def told(code, said, expected=(1, 2)):
    assert code in expected and said.startswith("duplex: ") and "\nnext: " in said, (code, said)


def test_pairs_that_are_no_file_of_pairs_are_refused(build):
    """Mutation: contents_of() reads through an istreambuf_iterator: exit 134 for a folder."""
    with with_volumes(Array(build), "db") as array:
        other = array.path("bytes")
        with open(other, "wb") as file:
            file.write(b"PVOL \xff 0x400104, 0x0001\n")
        for path in (array.root, array.path("missing"), other, "/dev/zero"):
            told(*raw(array, "split", "--pairs", path), (1,))
        folder = os.open(array.root, os.O_RDONLY)
        told(*raw(array, "split", "--pairs", "-", stdin=folder), (1,))
        os.close(folder)
        code, said = raw(array, "split", "--pairs", "/dev/null")
        assert code == 1 and "the pairs are empty" in said, said


def test_what_cannot_be_a_name_is_refused_before_the_array_is_asked(build):
    """Mutations: path_part() checks nothing; check_text() is left out."""
    with with_volumes(Array(build), "db", "copy") as array:
        array.do("mirror", "create", "m", "db", "copy", "--wait")
        array.do("group", "create", "g", "m")
        for words in (("volume", "show", "db/extents"), ("volume", "extents", ".."),
                      ("group", "show", "g/add"), ("group", "delete", "g/"),
                      ("mirror", "show", "m?plan=1"), ("mirror", "delete", "m%20"),
                      ("device", "show", "disk0/resize"), ("job", "show", "1/pause"),
                      ("volume", "show", "a:b:c"), ("volume", "show", "test:"),
                      ("volume", "show", "x" * 64)):
            told(*raw(array, *words), (2,))
        for words in ((b"volume", b"create", b"\xff", b"--size", b"1M"),
                      (b"volume", b"show", b"db\xc3"), (b"split", b"\xff"),
                      (b"--json", b"volume", b"show", b"\xff")):
            code, said = raw(array, *words)
            assert code == 2 and "not UTF-8" in said and "next" in said, (code, said)
        for name in ("db", "0x0001", "test:db", "0x400104,0x0001", "0x400104, 0x0001"):
            expect(array.do("volume", "show", name)["name"], "db")


def test_waiting_for_a_job_that_was_cancelled_fails(build):
    """So that `job wait m && split m` stops. Mutation: check_end() lets it pass."""
    with with_volumes(Array(build), "db", "copy") as array:
        write(array, "db", os.urandom(32 * MIB))
        array.do("mirror", "create", "m", "db", "copy", "--rate", "1M")
        array.do("job", "cancel", "m")
        error = array.refused("job", "wait", "m")
        assert "cancelled" in error["message"] and "mirror show m" in error["next"], error
        shown = mirror(array, "m")
        assert shown["state"] == "SUSPENDED" and shown["progress"] < 80, shown


def half_restored(array):
    """db is inconsistent: its restore was cancelled."""
    array.do("mirror", "create", "m", "db", "copy", "--wait")
    array.do("split", "m")
    for _ in range(5):
        write(array, "db", os.urandom(48 * MIB))
        array.do("mirror", "restore", "m", "--yes")
        if array.run("job", "pause", "m").code == 0:
            array.do("job", "cancel", "m", "--yes")
            wait_for(array, "m", "SPLIT")
            return
        wait_for(array, "m", "SPLIT")
    raise AssertionError("every restore was faster than the pause")


def test_a_volume_that_hosts_cannot_open_says_so_and_what_helps(build):
    """Mutation: print_volumes() and print_volume() look at `damaged` only."""
    with with_volumes(Array(build), "db", "copy") as array:
        half_restored(array)
        for words in (("volume", "show", "db"), ("status",), ("mirror", "show", "m")):
            out = array.run(*words, check=0).out
            assert "inconsistent" in out.lower() and "next: duplex mirror restore m" in out, out
        assert "nbd-client" not in array.run("volume", "show", "db", check=0).out
        lines = array.run("volume", "list", check=0).out.splitlines()
        expect([line.split()[-1] for line in lines if line.startswith("db ")], ["(inconsistent)"])
        expect(array.run("status", "--check").code, 1)
        array.do("mirror", "restore", "m", "--yes", "--wait")
        array.run("status", "--check", check=0)
        array.run("mirror", "delete", "m", "--yes", check=0)
        write(array, "db", os.urandom(48 * MIB))
        array.do("mirror", "create", "n", "db", "copy", "--overwrite", "--rate", "1M")
        array.run("mirror", "delete", "n", "--yes", check=0)
        assert "(inconsistent)" in array.run("volume", "list", check=0).out
        out = array.run("volume", "show", "copy", check=0).out
        assert "mirror create NAME SOURCE copy --overwrite" in out, out
        assert "copy" in array.run("status", "--check", check=1).out


def test_messages_name_what_to_do(build):
    """Mutations: group_asked() answers nothing; plan_restore() says "at most 0"."""
    with with_volumes(Array(build), "db", "copy") as array:
        array.do("mirror", "create", "m", "db", "copy", "--wait")
        array.do("group", "create", "g", "m")
        array.do("split", "g")
        expect(array.refused("split", "g")["next"], "duplex mirror resync g")
        plan = array.run("mirror", "restore", "m", "--plan", check=0).out
        assert "nothing of it is overwritten" in plan, plan
        write(array, "db", b"x" * 64 * KIB)
        plan = array.run("mirror", "restore", "m", "--plan", check=0).out
        assert "at most 64K of it" in plan, plan
        code, said = raw(array, "mirror", "resync", "m", "--plan")
        assert code == 2 and "--reverse" in said.split("next: ")[1], said
