#!/usr/bin/env python3
"""Measures duplexd beside other NBD servers and prints a Markdown table.

  bench/nbd.py --tmpfs        files on tmpfs; server and client share CPU 0: the length of the path
  bench/nbd.py --disk DIR     files in DIR, O_DIRECT; server on CPU 1, client on CPU 0
  ... --free                  the same files, nobody pinned: every CPU for everybody
  ... --busy                  besides, one endless loop of nice 19 on each CPU: the worst neighbour

All servers run at once, each on a file of its own that was fully written through it; the cases go round
(A B C D, D C B A, ...), so a slow moment of the machine meets all of them. The client is fio with its
own NBD engine: everyone has it, it keeps the depth, and its cost is the same for every server.
"""
import argparse
import collections
import contextlib
import os
import subprocess
import sys
import tempfile
import time

from measure import fio, machine, median, spread_percent, table
from servers import Duplexd, Nbdkit, PEERS, Qsd, available, pin

HERE = os.path.dirname(os.path.abspath(__file__))
TMPFS = "/dev/shm"
EXTENT_BYTES = 4 << 20
FIRST_ROUNDS = 3
# The time a server needs to put its last work of a job behind it, before its CPU time is read.
SETTLE_S = 0.05

Case = collections.namedtuple("Case", "name words unit")
# least: of the peer's rate; cpu: at most this part of the peer's server CPU for an operation, or None.
Target = collections.namedtuple("Target", "least cpu")


def _case(name, rw, block, depth):
    unit = "mbs" if block == "1m" else "iops"
    return Case(name, [f"--rw={rw}", f"--bs={block}", f"--iodepth={depth}"], unit)


CASES = [*(_case(f"4k random read, depth {depth}", "randread", "4k", depth) for depth in (1, 16, 64)),
         *(_case(f"4k random write, depth {depth}", "randwrite", "4k", depth) for depth in (1, 16, 64)),
         _case("1 MiB read, depth 4", "read", "1m", 4),
         _case("1 MiB write, depth 4", "write", "1m", 4)]

# The first write of each place: one block in every extent, and a stream into an empty volume.
FIRST_BYTES = 8 << 30
STREAM_BYTES = 512 << 20
FIRST_CASES = [
    *(Case(f"first 4k write of each 4 MiB, depth {depth}",
           [f"--rw=write:{EXTENT_BYTES // 1024 - 4}k", "--bs=4k", f"--iodepth={depth}",
            f"--number_ios={FIRST_BYTES // EXTENT_BYTES}"], "iops") for depth in (1, 16)),
    Case("first 1 MiB writes, depth 4",
         ["--rw=write", "--bs=1m", "--iodepth=4", f"--io_size={STREAM_BYTES}"], "mbs")]

TARGETS = {
    "tmpfs": {"4k random read, depth 1": Target(1.3, None), "4k random write, depth 1": Target(1.3, None),
              "4k random read, depth 16": Target(1.5, 0.6), "4k random write, depth 16": Target(1.25, 0.7),
              "1 MiB read, depth 4": Target(1.0, None), "1 MiB write, depth 4": Target(1.0, None)},
    "disk": {"4k random read, depth 1": Target(1.0, None), "4k random write, depth 1": Target(1.0, None),
             "4k random read, depth 16": Target(1.0, 0.65), "4k random write, depth 16": Target(1.15, 0.65),
             "4k random read, depth 64": Target(1.3, 0.45),
             "1 MiB read, depth 4": Target(1.4, 0.35), "1 MiB write, depth 4": Target(1.4, 0.35)},
    "free": {}}


class Bench:
    """The servers of one run, and what was measured of them."""

    def __init__(self, servers, client_cpus, rounds, seconds):
        self.servers, self.rounds, self.seconds = servers, rounds, seconds
        self._client = pin(client_cpus)
        self.results = collections.defaultdict(list)  # (case name, server label) -> one dict a round

    def overwrite(self):
        """Every byte of every file once, with bytes that are no zeroes."""
        for server in self.servers:
            fio(self._client, "--ioengine=nbd", "--uri=" + server.uri, "--rw=write", "--bs=1m",
                "--iodepth=4", "--refill_buffers", "--end_fsync=1")

    def run(self, cases, first_writes=False):
        for number in range(self.rounds):
            order = self.servers if number % 2 == 0 else self.servers[::-1]
            for case in cases:
                for server in order:
                    if first_writes:
                        server.empty()
                    self.results[case.name, server.label].append(self._one(case, server, first_writes))

    def _one(self, case, server, first_writes):
        length = [] if first_writes else ["--time_based", f"--runtime={self.seconds * 1000:.0f}ms"]
        time.sleep(SETTLE_S)
        before = server.cpu()
        result = fio(self._client, "--ioengine=nbd", "--uri=" + server.uri, *case.words, *length)
        time.sleep(SETTLE_S)
        result["cpu_us"] = (server.cpu() - before) * 1e6 / max(result["ops"], 1)
        return result

    def table(self, cases, peer, targets):
        head = ["case", "server", "rate", "p50 us", "p99 us", "longest us", "server CPU us/op",
                "client CPU %", "spread %", f"rate to {peer}", "worst round", f"CPU to {peer}",
                "target", "verdict"]
        rows = []
        for case in cases:
            base = self.results[case.name, peer]
            for server in self.servers:
                rows.append(self._row(case, server, base, targets.get(case.name)))
        return table(head, rows)

    def _row(self, case, server, base, target):
        mine = self.results[case.name, server.label]
        rate = median(mine, case.unit) / median(base, case.unit)
        worst = min(a[case.unit] / b[case.unit] for a, b in zip(mine, base))
        cpu = median(mine, "cpu_us") / max(median(base, "cpu_us"), 1e-9)
        wanted, verdict = "", ""
        if target and server.label == Duplexd.label:
            wanted = f"rate {target.least}" + (f", CPU {target.cpu}" if target.cpu else "")
            met = rate >= target.least and (not target.cpu or cpu <= target.cpu)
            verdict = "met" if met else "**missed**"
        value = median(mine, case.unit)
        return [case.name, server.label, f"{value:.0f} " + ("MB/s" if case.unit == "mbs" else "IOPS"),
                *(f"{median(mine, key):.0f}" for key in ("p50_us", "p99_us", "max_us")),
                f"{median(mine, 'cpu_us'):.1f}", f"{median(mine, 'client_percent'):.0f}",
                f"{spread_percent(mine, case.unit):.0f}", f"{rate:.2f}", f"{worst:.2f}", f"{cpu:.2f}",
                wanted, verdict]


@contextlib.contextmanager
def neighbours(wanted):
    """Endless loops, one on each CPU, of the lowest priority there is in the normal class."""
    loops = [subprocess.Popen([*pin(str(cpu)), "nice", "-n", "19", "sh", "-c", "while :; do :; done"])
             for cpu in sorted(os.sched_getaffinity(0)) if wanted]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(options, kinds, size_bytes, peer, cases, first_writes):
    """One set of servers from start to end; the table."""
    server_cpus, client_cpus = options.cpus
    with tempfile.TemporaryDirectory(prefix="duplex-bench-", dir=options.folder) as folder, \
            contextlib.ExitStack() as stack:
        servers = [stack.enter_context(kind(folder, size_bytes, server_cpus)) for kind in kinds]
        rounds = min(options.rounds, FIRST_ROUNDS) if first_writes else options.rounds
        bench = Bench(servers, client_cpus, rounds, options.seconds)
        if not first_writes:
            bench.overwrite()
        with neighbours(options.busy):
            bench.run(cases, first_writes)
        return bench.table(cases, peer.label, {} if first_writes or options.busy else TARGETS[options.mode])


def parse():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--tmpfs", action="store_true")
    where.add_argument("--disk", metavar="DIR")
    parser.add_argument("--free", action="store_true", help="pin nobody")
    parser.add_argument("--busy", action="store_true", help="with endless loops of nice 19 beside")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.8, help="of each measurement")
    parser.add_argument("--size", type=int, default=1024, help="MiB of each server's file")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--pair", action="store_true", help="only duplexd and the peer of the ratios")
    parser.add_argument("--no-first-writes", action="store_true")
    parser.add_argument("--build", default=os.path.join(HERE, "..", "build"))
    options = parser.parse_args()
    options.folder = TMPFS if options.tmpfs else options.disk
    options.mode = "free" if options.free else "tmpfs" if options.tmpfs else "disk"
    options.cpus = (None, None) if options.free else ("0", "0") if options.tmpfs else ("1", "0")
    if options.mode == "disk" and os.cpu_count() < 2:
        parser.error("--disk pins server and client on two CPUs; this machine has one: add --free")
    return options


def main():
    options = parse()
    peer = Nbdkit if options.tmpfs else Qsd
    Duplexd.build = options.build
    others = [] if options.pair else [each for each in PEERS if each is not peer]
    kinds = available([peer, Duplexd, *others])
    if peer not in kinds:
        sys.exit(f"{peer.program} is what the ratios are to; next: install it")
    cases = [case for case in CASES if options.only in case.name]
    print(f"{machine([options.folder])}; servers on CPU {options.cpus[0] or 'any'}, fio on CPU "
          f"{options.cpus[1] or 'any'}; {options.rounds} rounds of {options.seconds:g} s, "
          f"{options.size} MiB each{'; an endless loop of nice 19 on each CPU' if options.busy else ''}\n")
    print(measure(options, kinds, options.size << 20, peer, cases, False), flush=True)
    if options.no_first_writes:
        return
    cases = [case for case in FIRST_CASES if options.only in case.name]
    print("\nFirst writes, into an empty volume or a sparse file:\n")
    print(measure(options, kinds, FIRST_BYTES, peer, cases, True))


if __name__ == "__main__":
    main()
