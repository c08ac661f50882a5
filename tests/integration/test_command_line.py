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


