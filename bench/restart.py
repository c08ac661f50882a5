#!/usr/bin/env python3
"""Measures the restart after kill -9, and the memory of the idle daemon, with a fully mapped volume.

  bench/restart.py DIR [--maps thick,scattered]

DIR is where the sparse device file and the state directory lie. The volume is mapped twice: `thick`, all
extents at once and in one piece; and `scattered`, by one block written into each extent in random order, so
that hardly an extent follows its neighbour: the worst map there is. 1 TiB needs next to nothing when thick,
and 1 GiB when scattered; that one belongs on tmpfs, because removing a file of 262144 pieces takes minutes
on a disk that is told of each (mount option discard).
"""
import argparse
import os
import random
import select
import statistics
import subprocess
import tempfile
import time

from measure import fio, machine, table
from servers import Array, Build, HERE
import rawnbd

EXTENT_BYTES, BLOCK_BYTES = 4 << 20, 4096
DEPTH = 64
LOAD = ["--rw=randread", "--bs=1m", "--iodepth=64", "--time_based", "--runtime=1s"]
START_LIMIT_S = 120
IDLE_S = 2
TARGET_START_S, TARGET_MIB = 2.0, 64
HEAD = ["map", "reactors", "ready, median s", "slowest s", "first read, median s", "slowest s",
        "RSS idle MiB", "of it anonymous", "RSS idle after load MiB", "target", "verdict", "after load"]


class Daemon(Array):
    """An array whose start is timed."""

    def start_timed(self):
        """Starts it and reads the first block; (seconds until ready, until the block is there)."""
        begin = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, stderr=log)
        said, _, _ = select.select([self.process.stdout], [], [], START_LIMIT_S)
        if not said or self.process.stdout.readline() != b"ready\n":
            raise RuntimeError("duplexd does not start: " + self.log_text()[-2000:])
        ready = time.monotonic() - begin
        read_block(self, 0)
        return ready, time.monotonic() - begin

    def memory_mib(self):
        """Resident memory, and how much of it is not backed by a file."""
        sizes = {}
        with open(f"/proc/{self.process.pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                words = line.split()
                if words[0] in ("Rss:", "Anonymous:"):
                    sizes[words[0]] = int(words[1]) / 1024
        return sizes["Rss:"], sizes["Anonymous:"]


def read_block(array, offset):
    with rawnbd.Raw(array) as client:
        client.greet()
        client.go()
        cookie = client.request(rawnbd.READ, offset, BLOCK_BYTES)
        if client.reply({cookie: BLOCK_BYTES}).error:
            raise RuntimeError("the first read failed")


def scatter(array, extents):
    """One block into each extent, in random order that is the same every time."""
    order = list(range(extents))
    random.Random(1).shuffle(order)
    block = b"\x5a" * BLOCK_BYTES
    with rawnbd.Raw(array) as client:
        client.greet()
        client.go()
        under_way = 0
        for extent in order:
            client.request(rawnbd.WRITE, extent * EXTENT_BYTES, BLOCK_BYTES, payload=block)
            under_way += 1
            if under_way == DEPTH:
                under_way -= finish(client)
        while under_way:
            under_way -= finish(client)


def finish(client):
    if client.reply().error:
        raise RuntimeError("a write failed")
    return 1


def prepare(array, kind, size_bytes):
    array.start()
    array.do("device", "add", array.path("disk"), "--size", size_bytes + size_bytes // 1024 + (256 << 20))
    thick = ["--thick"] if kind == "thick" else []
    array.do("volume", "create", "vol", "--size", size_bytes, *thick)
    if kind == "scattered":
        scatter(array, size_bytes // EXTENT_BYTES)
    allocated = array.do("volume", "list")[0]["allocated"]
    if allocated != size_bytes:
        raise RuntimeError(f"{allocated} of {size_bytes} bytes are mapped")


def verdict(met):
    return "met" if met else "**missed**"


def measure(array, kind, reactors, starts):
    """The row of one map and one number of reactors."""
    array.reactors = reactors
    ready, first = [], []
    for _ in range(starts):
        array.kill()
        times = array.start_timed()
        ready.append(times[0])
        first.append(times[1])
    time.sleep(IDLE_S)
    resident, anonymous = array.memory_mib()
    fio([], "--ioengine=nbd", "--uri=" + array.uri("vol"), *LOAD)
    time.sleep(IDLE_S)
    after_load = array.memory_mib()[0]
    met = statistics.median(first) < TARGET_START_S and resident <= TARGET_MIB
    return [kind, reactors, f"{statistics.median(ready):.2f}", f"{max(ready):.2f}",
            f"{statistics.median(first):.2f}", f"{max(first):.2f}",
            f"{resident:.0f}", f"{anonymous:.0f}", f"{after_load:.0f}",
            f"under {TARGET_START_S:g} s, {TARGET_MIB} MiB",
            verdict(met), verdict(after_load <= TARGET_MIB)]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024, help="GiB of the volume")
    parser.add_argument("--maps", default="thick,scattered")
    parser.add_argument("--reactors", default="1,2,4")
    parser.add_argument("--build", default=os.path.join(HERE, "..", "build"))
    options = parser.parse_args()
    print(f"{machine([options.folder])}; {options.starts} starts each, a volume of {options.size} GiB "
          f"in extents of 4 MiB\n")
    rows = []
    for kind in options.maps.split(","):
        with tempfile.TemporaryDirectory(prefix="duplex-bench-", dir=options.folder) as folder, \
                Daemon(Build(options.build), root=folder) as array:
            begin = time.monotonic()
            prepare(array, kind, options.size << 30)
            resident = array.memory_mib()[0]
            print(f"{kind}: mapped in {time.monotonic() - begin:.1f} s, RSS then {resident:.0f} MiB\n")
            rows += [measure(array, kind, int(count), options.starts)
                     for count in options.reactors.split(",")]
    print(table(HEAD, rows))


if __name__ == "__main__":
    main()
