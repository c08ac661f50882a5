"""The NBD contexts duplex:changed/MIRROR, as a backup program uses them."""
import os
import pathlib
import random
import subprocess
import threading
import time

import nbd
from duplex import KIB, MIB, Array, connect
from test_lifecycle import expect
from test_mirrors import wait_for, with_volumes, write

SIZE = 64 * MIB
REGION = 64 * KIB
CONTEXT = "duplex:changed/m1"


def with_contexts(array, volume, *contexts):
    handle = nbd.NBD()
    for context in contexts:
        handle.add_meta_context(context)
    handle.connect_uri(array.uri(volume))
    return handle


def listed(array, volume, *queries):
    handle = nbd.NBD()
    handle.set_opt_mode(True)
    for query in queries:
        handle.add_meta_context(query)
    handle.connect_uri(array.uri(volume))
    names = []
    handle.opt_list_meta_context(names.append)
    handle.opt_abort()
    return sorted(names)


def changed(handle, context=CONTEXT):
    """[(offset, length)] of what has changed."""
    found, at = [], 0
    while at < SIZE:
        entries = []

        def note(name, _offset, runs, _error, into=entries):
            if name == context:
                into.extend(runs)
        handle.block_status(SIZE - at, at, note)
        assert entries, "no answer for " + context
        for length, flags in zip(entries[::2], entries[1::2]):
            assert flags in (0, 1) and length > 0, (length, flags)
            if flags == 1:
                found.append((at, length))
            at += length
    expect(at, SIZE, "the runs end with the volume")
    return found


def whole(array, volume):
    handle = connect(array, volume)
    data = b"".join(handle.pread(16 * MIB, at) for at in range(0, SIZE, 16 * MIB))
    handle.shutdown()
    return data


def copy_regions(array, volume, regions, into):
    handle = connect(array, volume)
    for offset, length in regions:
        for at in range(offset, offset + length, 16 * MIB):
            size = min(16 * MIB, offset + length - at)
            into[at:at + size] = handle.pread(size, at)
    handle.shutdown()


def test_an_incremental_copy_takes_what_both_sides_say_has_changed(build):
    """Full copy of the target at cut 1; both written; resync, cut 2; the changed regions again."""
    with with_volumes(Array(build), "db", "copy") as array:
        rng = random.Random(4)
        write(array, "db", os.urandom(5 * MIB), 7 * MIB)
        array.do("mirror", "create", "m1", "db", "copy", "--wait")
        array.do("split", "m1")
        backup = bytearray(whole(array, "copy"))
        for volume in ("db", "copy"):
            handle = with_contexts(array, volume, CONTEXT)
            expect(changed(handle), [], volume)
            handle.shutdown()
        for _ in range(40):
            write(array, rng.choice(("db", "db", "copy")), rng.randbytes(rng.randrange(1, 9 * KIB)),
                  rng.randrange(SIZE - 9 * KIB))
        write(array, "db", bytes(2 * MIB), 8 * MIB)
        here = with_contexts(array, "db", CONTEXT, "base:allocation")
        there = with_contexts(array, "copy", CONTEXT)
        parts = changed(here), changed(there)
        assert all(parts), "one side has not changed"
        for part in parts:
            for offset, length in part:
                expect((offset % REGION, length % REGION), (0, 0), "whole regions")
        regions = parts[0] + parts[1]
        assert sum(length for _, length in regions) < SIZE // 4, "much more than was written"
        there.shutdown()
        array.do("mirror", "resync", "m1", "--wait")
        wait_for(array, "m1", "SYNC")
        expect(changed(here), [(0, SIZE)], "who knew the maps before a resync is told so")
        array.do("split", "m1")
        expect(changed(here), [(0, SIZE)], "and goes on being told")
        here.shutdown()
        after = whole(array, "copy")
        assert bytes(backup) != after, "nothing was written"
        copy_regions(array, "copy", regions, backup)
        assert bytes(backup) == after == whole(array, "db"), "the increment is not the image"


def test_contexts_come_and_go_with_the_mirror(build):
    with with_volumes(Array(build), "db", "copy") as array:
        expect(listed(array, "db", "duplex:"), [])
        array.do("mirror", "create", "m1", "db", "copy", "--wait")
        for query in ("duplex:", "duplex:changed/", CONTEXT):
            expect(listed(array, "db", query), [CONTEXT])
        expect(listed(array, "db"), ["base:allocation", CONTEXT])
        expect(listed(array, "copy", "duplex:"), [], "a target that is not split")
        array.do("split", "m1")
        expect(listed(array, "copy", "duplex:"), [CONTEXT])
        handle = with_contexts(array, "db", CONTEXT)
        write(array, "db", b"new", 3 * REGION + 5)
        expect(changed(handle), [(3 * REGION, REGION)])
        array.kill()
        array.start()
        handle = with_contexts(array, "db", CONTEXT)
        assert any(offset <= 3 * REGION < offset + length
                   for offset, length in changed(handle)), "a crash has forgotten it"
        array.do("mirror", "delete", "m1", "--yes")
        expect(changed(handle), [(0, SIZE)], "of a mirror that is gone")
        handle.shutdown()
        expect(listed(array, "db", "duplex:"), [])


# Mutation: the script leaves out what lies behind the first 8 MiB.
def test_the_script_of_the_guide_keeps_an_image_up_to_date_under_load(build):
    script = pathlib.Path(__file__).resolve().parents[2] / "docs/examples/incremental-backup"
    stop = threading.Event()

    def load(array):
        handle, rng = connect(array, "db"), random.Random(6)
        while not stop.is_set():
            handle.pwrite(rng.randbytes(4 * KIB), rng.randrange(SIZE // 4) // 512 * 512)
            time.sleep(0.001)
        handle.shutdown()

    with with_volumes(Array(build), "db", "odd", "even") as array:
        write(array, "db", os.urandom(SIZE // 4))
        writer = threading.Thread(target=load, args=(array,))
        writer.start()
        try:
            for name in ("odd", "even"):
                array.do("mirror", "create", name, "db", name, "--wait")
            array.do("split", "odd", "--access", "ro")
            image = pathlib.Path(array.path("image"))
            image.write_bytes(whole(array, "odd"))
            for old, new in (("odd", "even"), ("even", "odd"), ("odd", "even")):
                time.sleep(0.2)
                array.do("mirror", "resync", new, "--wait")
                wait_for(array, new, "SYNC")
                array.do("split", new, "--access", "ro")
                done = subprocess.run([script, array.uri("db"), old, array.uri(new), image],
                                      text=True, capture_output=True, check=False)
                expect((done.returncode, done.stderr), (0, ""))
                copied = int(done.stdout.split()[0])
                assert 0 < copied < SIZE // 2, done.stdout
                assert image.read_bytes() == whole(array, new), "the image is not that of the cut"
        finally:
            stop.set()
            writer.join()


# Mutation: the script lets errors through.
def test_the_script_of_the_guide_tells_a_mistake_in_one_line(build):
    script = pathlib.Path(__file__).resolve().parents[2] / "docs/examples/incremental-backup"
    with with_volumes(Array(build), "db", "copy") as array:
        array.do("mirror", "create", "m", "db", "copy", "--wait")
        array.do("split", "m", "--access", "ro")
        image = array.path("image")
        for words in ((array.uri("none"), "m", array.uri("copy"), image),
                      ("no uri", "m", array.uri("copy"), image),
                      (array.uri("db"), "none", array.uri("copy"), image),
                      (array.uri("db"), "m", array.uri("none"), image),
                      (array.uri("db"), "m", array.uri("copy"), image)):
            done = subprocess.run([script, *words], text=True, capture_output=True, check=False)
            expect((done.returncode, done.stdout), (1, ""), words)
            assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr, done.stderr
