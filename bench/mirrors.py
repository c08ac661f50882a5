#!/usr/bin/env python3
"""Measures mirrors: the mirrored write path, first touches, the hold of a split, resync, restart.

  bench/mirrors.py --part path --tmpfs        mirrored 4k writes beside qsd's write-blocking mirror, one CPU
  bench/mirrors.py --part path --disk DIR     the same beside fio writing pairs of files
  bench/mirrors.py --part first --tmpfs       4k writes to stretches that are not hot, beside no mirror
  bench/mirrors.py --part hold --tmpfs        splits of 64 mirrors over 64 volumes on two reactors
  bench/mirrors.py --part resync --disk DIR   scattered changes of a 1 TiB volume beside nbdcopy
  bench/mirrors.py --part restart --tmpfs     kill -9 with 1 TiB, fully mapped and mirrored

As in bench/nbd.py: everything that is compared runs in one run, round by round (A B C, C B A, ...), on
the same CPUs; a row has the median of the rounds, and the worst round beside it.
"""
import argparse
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from measure import fio, machine, median, spread_percent, table
from nbd import Bench, Case
from restart import EXTENT_BYTES, Daemon, scatter, verdict
from servers import DEVICE_EXTRA_BYTES, HERE, START_LIMIT_S, Array, Build, Duplexd, Qsd, pin, pinned
import rawnbd
from dependent import Api

TMPFS = "/dev/shm"
KIB, MIB = 1 << 10, 1 << 20
BLOCK_BYTES, REGION_BYTES, STRETCH_BYTES = 4 * KIB, 64 * KIB, 4 * MIB
COPY = "copy"
READY_LIMIT_S = 120


# The mirrored write path.

class Mirrored(Duplexd):
    """duplexd with a volume and its mirror, in SYNC."""

    label = "mirrored"

    def _start(self):
        self.volume_bytes, self.size_bytes = self.size_bytes, 2 * self.size_bytes
        super()._start()

    def _create(self):
        for name in (self.export, COPY):
            self._array.do("volume", "create", name, "--size", self.volume_bytes)
        self._array.do("mirror", "create", "m", self.export, COPY, "--wait")

    def check(self):
        state = self._array.do("mirror", "show", "m")["state"]
        if state != "SYNC":
            raise RuntimeError(f"the mirror is {state}: what was measured is no mirror")


class Qmp:
    """The control socket of qemu-storage-daemon."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(START_LIMIT_S)
        self._socket.connect(path)
        self._lines = self._socket.makefile("r")
        self._lines.readline()
        self.do("qmp_capabilities")

    def do(self, command, **words):
        said = {"execute": command, "arguments": {key.replace("_", "-"): v for key, v in words.items()}}
        self._socket.sendall(json.dumps(said).encode() + b"\n")
        while True:
            line = json.loads(self._lines.readline())
            if "error" in line:
                raise RuntimeError(f"qsd: {command}: {line['error']['desc']}")
            if "return" in line:
                return line["return"]

    def close(self):
        self._lines.close()
        self._socket.close()


class QsdMirror(Qsd):
    """qemu-storage-daemon with a mirror job that hands every write to both files before it answers."""

    label = "qsd-mirror"

    def command(self):
        self.qmp = os.path.join(self.folder, "qmp.sock")
        with open(self.file + "2", "wb") as file:
            file.truncate(self.size_bytes)
        return super().command() + [
            "--blockdev", f"driver=file,node-name=t,filename={self.file}2,aio=io_uring,cache.direct=on,"
                          "locking=off,discard=unmap",
            "--chardev", f"socket,id=q,path={self.qmp},server=on,wait=off", "--monitor", "chardev=q"]

    def _wait_until_it_serves(self):
        super()._wait_until_it_serves()
        qmp = Qmp(self.qmp)
        qmp.do("blockdev-mirror", job_id="m", device="f", target="t", sync="full",
               copy_mode="write-blocking")
        qmp.close()
        self.check()

    def check(self):
        """Waits until the job is ready: both files are equal and stay so."""
        qmp, end = Qmp(self.qmp), time.monotonic() + READY_LIMIT_S
        while not [job for job in qmp.do("query-block-jobs") if job["ready"]]:
            if time.monotonic() > end:
                raise RuntimeError("qsd: the mirror does not become ready")
            time.sleep(0.02)
        qmp.close()


class Pairs:
    """fio itself, writing each block to two files: what the disk gives for a mirror without any server."""

    label = "fio, pairs of files"

    def __init__(self, folder, size_bytes, cpus):
        self.folder = os.path.join(folder, "pairs")
        os.mkdir(self.folder)
        self.size_bytes, self.cpus = size_bytes, cpus

    def __enter__(self):
        for name in "ab":
            fio([], "--ioengine=io_uring", "--direct=1", f"--filename={self.folder}/{name}", "--rw=write",
                "--bs=1m", f"--size={self.size_bytes}", "--iodepth=4", "--refill_buffers", "--end_fsync=1")
        return self

    def __exit__(self, *_):
        pass

    def measure(self, depth, seconds):
        """A pair is under way until both its writes are done; at depth 1 the next begins only then."""
        both = ["--iodepth_batch=2", "--iodepth_batch_complete_min=2"] if depth == 1 else []
        result = fio(pin(self.cpus), "--ioengine=io_uring", "--direct=1", "--rw=randwrite", "--bs=4k",
                     f"--filename={self.folder}/a:{self.folder}/b", "--file_service_type=roundrobin:1",
                     f"--size={2 * self.size_bytes}", f"--iodepth={2 * depth}", *both, "--time_based",
                     f"--runtime={seconds * 1000:.0f}ms")
        result["iops"] /= 2
        result["cpu_us"] = 0
        return result


class PathBench(Bench):
    """Bench of nbd.py that knows Pairs, and looks after each round whether mirrors are mirrors."""

    def _one(self, case, server, first_writes):
        if isinstance(server, Pairs):
            depth = int(case.words[-1].partition("=")[2])
            return server.measure(depth, self.seconds)
        result = super()._one(case, server, first_writes)
        if hasattr(server, "check"):
            server.check()
        return result

    def ratio(self, case, label, peer):
        """Median and worst of the rounds' ratios."""
        rates = [a["iops"] / b["iops"] for a, b in zip(self.results[case, label], self.results[case, peer])]
        return statistics.median(rates), min(rates)


RATE_HEAD = ["case", "server", "rate", "p50 us", "p99 us", "longest us", "server CPU us/op", "spread %",
             "mirrored to it", "worst round", "target", "verdict"]


def rate_rows(bench, cases, targets):
    """A row for each server; the ratio is that of the mirrored volume to the row's server."""
    rows = []
    for case in cases:
        for server in bench.servers:
            mine = bench.results[case.name, server.label]
            rate, worst = bench.ratio(case.name, Mirrored.label, server.label)
            least = targets.get(server.label)
            rows.append([case.name, server.label, f"{median(mine, 'iops'):.0f} IOPS",
                         *(f"{median(mine, key):.0f}" for key in ("p50_us", "p99_us", "max_us")),
                         f"{median(mine, 'cpu_us'):.1f}" if mine[0]["cpu_us"] else "-",
                         f"{spread_percent(mine, 'iops'):.0f}", f"{rate:.2f}", f"{worst:.2f}",
                         f"at least {least}" if least else "",
                         verdict(rate >= least) if least else ""])
    return rows


PATH_CASES = [Case(f"4k random write, depth {depth}", ["--rw=randwrite", "--bs=4k", f"--iodepth={depth}"],
                   "iops") for depth in (1, 16)]


def part_path(options):
    """Hot mirrored writes: every stretch of the volume has been written before."""
    size = options.size << 20
    kinds = [Mirrored, Duplexd, QsdMirror if options.tmpfs else Pairs]
    targets = ({QsdMirror.label: 2.0, Duplexd.label: 0.70} if options.tmpfs else {Pairs.label: 0.9})
    server_cpus, client_cpus = options.cpus
    with tempfile.TemporaryDirectory(prefix="duplex-bench-", dir=options.folder) as folder, \
            contextlib.ExitStack() as stack:
        servers = [stack.enter_context(kind(folder, size, server_cpus)) for kind in kinds]
        bench = PathBench(servers, client_cpus, options.rounds, options.seconds)
        for server in servers:
            if not isinstance(server, Pairs):
                fio(pin(client_cpus), "--ioengine=nbd", "--uri=" + server.uri, "--rw=write", "--bs=1m",
                    "--iodepth=4", "--refill_buffers", "--end_fsync=1")
        bench.run(PATH_CASES)
        print(table(RATE_HEAD, rate_rows(bench, PATH_CASES, targets)))


# First touches.

# Twice as many stretches as may be hot: a pass in order finds each of them cold, and cools another.
FIRST_STRETCHES = 2048
FIRST_CASES = [Case(f"4k write to a cold stretch of 4 MiB, depth {depth}",
                    [f"--rw=write:{STRETCH_BYTES // 1024 - 4}k", "--bs=4k", f"--iodepth={depth}"], "iops")
               for depth in (1, 16)]


def part_first(options):
    """All extents are mapped: what is measured is the mark, and the cooling of another stretch."""
    server_cpus, client_cpus = options.cpus
    with tempfile.TemporaryDirectory(prefix="duplex-bench-", dir=options.folder) as folder, \
            contextlib.ExitStack() as stack:
        servers = [stack.enter_context(kind(folder, FIRST_STRETCHES * STRETCH_BYTES, server_cpus))
                   for kind in (Mirrored, Duplexd)]
        bench = FirstBench(servers, client_cpus, options.rounds, options.seconds)
        for server in servers:
            fio(pin(client_cpus), "--ioengine=nbd", "--uri=" + server.uri, *FIRST_CASES[-1].words,
                f"--number_ios={FIRST_STRETCHES}")
        bench.run(FIRST_CASES)
        print(table(RATE_HEAD, rate_rows(bench, FIRST_CASES, {})))


class FirstBench(PathBench):
    """Each measurement goes on where the one before it ended, so that no stretch is hot again."""

    def __init__(self, *words):
        super().__init__(*words)
        self._next = {}

    def _one(self, case, server, first_writes):
        at, before = self._next.get(server.label, 0), server.cpu()
        result = fio(self._client, "--ioengine=nbd", "--uri=" + server.uri, *case.words,
                     f"--offset={at * STRETCH_BYTES}", f"--number_ios={FIRST_STRETCHES // 2}",
                     f"--runtime={2 * self.seconds * 1000:.0f}ms")
        at += result["ops"]
        self._next[server.label] = at if at <= FIRST_STRETCHES // 2 else 0
        result["cpu_us"] = (server.cpu() - before) * 1e6 / max(result["ops"], 1)
        if hasattr(server, "check"):
            server.check()
        return result


# The hold of a split.

HOLD_VOLUMES, HOLD_BYTES = 64, 64 * MIB
HOLD_TARGET_US = 1000
# Windows of fio's latency logs; the slowest write of a window is what is kept.
WINDOW_MS = 10
LOADS = (("64 writers, 100 a second each", 100), ("64 writers, as fast as they can", 0))


class Load:
    """fio, one writer of depth 1 on each volume, until stopped; keeps the slowest write of each window."""

    def __init__(self, folder, array, rate):
        self._logs = tempfile.TemporaryDirectory(prefix="fio-", dir=folder)
        words = ["fio", "--thread", "--ioengine=nbd", "--rw=randwrite", "--bs=4k", "--iodepth=1",
                 "--time_based", "--runtime=1h", f"--log_avg_msec={WINDOW_MS}", "--log_max_value=1",
                 "--log_unix_epoch=1", *([f"--rate_iops={rate}"] if rate else [])]
        for number in range(HOLD_VOLUMES):
            words += [f"--name=w{number}", "--uri=" + array.uri(f"v{number}"),
                      f"--write_lat_log={self._logs.name}/w{number}"]
        self._output = open(os.path.join(self._logs.name, "out"), "w+", encoding="utf-8")
        self._process = subprocess.Popen(words, cwd=self._logs.name, stdin=subprocess.DEVNULL,
                                         stdout=self._output, stderr=self._output)

    def wait(self, array):
        """Until each writer writes."""
        first, end = None, time.monotonic() + START_LIMIT_S
        while True:
            writes = [row["stats"]["writes"] for row in array.do("volume", "list") if row["name"][0] == "v"]
            first = first or writes
            if all(now > then for now, then in zip(writes, first)):
                return
            if time.monotonic() > end:
                raise RuntimeError("fio does not write: " + self._said())
            time.sleep(0.1)

    def stop(self):
        """Windows as (end in ms of the epoch, slowest write in us)."""
        self._process.send_signal(2)
        if self._process.wait(timeout=START_LIMIT_S) not in (0, 128):
            raise RuntimeError("fio: " + self._said())
        windows = []
        for number in range(HOLD_VOLUMES):
            with open(f"{self._logs.name}/w{number}_clat.{number + 1}.log", encoding="ascii") as file:
                for line in file:
                    when, nanoseconds = line.split(",")[:2]
                    windows.append((int(when), int(nanoseconds) / 1000))
        text = self._said()
        if "error=" in text or "io_u error" in text:
            raise RuntimeError("a host write failed: " + text[-500:])
        return windows

    def _said(self):
        self._output.seek(0)
        return self._output.read()

    def close(self):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._output.close()
        self._logs.cleanup()


def hold_array(options, folder):
    array = Array(Build(options.build), reactors=2, root=folder)
    with pinned("0,1"):
        array.start()
    array.do("device", "add", array.path("disk"), "--size",
             2 * HOLD_VOLUMES * HOLD_BYTES + DEVICE_EXTRA_BYTES)
    # Volumes go to the reactors in turn; half of the mirrors have their target on the other one.
    for kind in "vs":
        for number in range(HOLD_VOLUMES):
            array.do("volume", "create", f"{kind}{number}", "--size", HOLD_BYTES)
    reactor = {row["name"]: row["reactor"] for row in array.do("volume", "list")}
    across = 0
    for number in range(HOLD_VOLUMES):
        other = number if number < HOLD_VOLUMES // 2 else number ^ 1
        across += reactor[f"v{number}"] != reactor[f"s{other}"]
        array.do("mirror", "create", f"m{number}", f"v{number}", f"s{other}")
    array.do("group", "create", "all", *[f"m{number}" for number in range(HOLD_VOLUMES)])
    sources = [reactor[f"v{number}"] for number in range(HOLD_VOLUMES)]
    if len(set(sources)) != 2:
        raise RuntimeError("the sources do not lie on both reactors")
    return array, f"{sources.count(sources[0])} sources on one reactor, {HOLD_VOLUMES - sources.count(sources[0])} " \
                  f"on the other, {across} mirrors across"


def wait_in_sync(api):
    end = time.monotonic() + READY_LIMIT_S
    while api.get("status")["mirrors"]["states"]["SYNC"] != HOLD_VOLUMES:
        if time.monotonic() > end:
            raise RuntimeError("the mirrors do not come back to SYNC")
        time.sleep(0.002)


def splits(api, count):
    """(holds in us, of each command (begin, end) in ms of the epoch)."""
    holds, stretches = [], []
    for _ in range(count):
        wait_in_sync(api)
        begin = time.time()
        cut = api.split("all")
        stretches.append((begin * 1000, time.time() * 1000))
        if len(cut["members"]) != HOLD_VOLUMES:
            raise RuntimeError("a split with other members")
        holds.append(cut["hold_us"])
        status, said = api.post("resyncs", {"names": ["all"]})
        if status not in (200, 202):
            raise RuntimeError(f"resync: {said}")
    return holds, stretches


def slowest(windows, stretches):
    """The slowest write of all windows that touch one of the stretches, and of the others, in us."""
    marked = set()
    for begin, end in stretches:
        marked.update(range(int(begin) // WINDOW_MS, int(end) // WINDOW_MS + 2))
    inside = [us for when, us in windows if when // WINDOW_MS in marked]
    outside = [us for when, us in windows if when // WINDOW_MS not in marked]
    return max(inside, default=0), max(outside, default=0)


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def part_hold(options):
    """Splits at one cut and resyncs of all mirrors in turn, under load; the hold as the gates saw it."""
    head = ["load", "splits", "hold median us", "p99 us", "longest us", "command median ms", "longest ms",
            "slowest host write near a split ms", "elsewhere ms", "target", "verdict"]
    rows = []
    with tempfile.TemporaryDirectory(prefix="duplex-bench-", dir=options.folder) as folder:
        array, layout = hold_array(options, folder)
        print(layout + "\n")
        with array:
            for number, (name, rate) in enumerate(LOADS):
                count = options.splits if number == 0 else max(1, options.splits // 20)
                with contextlib.closing(Load(folder, array, rate)) as load:
                    load.wait(array)
                    holds, stretches = splits(Api(array), count)
                    windows = load.stop()
                near, elsewhere = slowest(windows, stretches)
                took = [end - begin for begin, end in stretches]
                p99 = percentile(holds, 0.99)
                rows.append([name, count, f"{statistics.median(holds):.0f}", f"{p99:.0f}",
                             f"{max(holds):.0f}", f"{statistics.median(took):.1f}", f"{max(took):.1f}",
                             f"{near / 1000:.1f}", f"{elsewhere / 1000:.1f}",
                             f"p99 below {HOLD_TARGET_US} us", verdict(p99 < HOLD_TARGET_US)])
    print(table(head, rows))


# Resync.

CHANGED_REGIONS, RESYNC_TARGET = 16384, 1.3
# It reads whole extents, 64 GiB of them on both sides, most of it holes of the files.
VERIFY_LIMIT_S = 600
EMPTY_TARGET_S = 2.0


def scatter_regions(array, volume, regions, seed):
    """One write of a region's length at each place, in random order; flushed."""
    dice, places = random.Random(seed), list(regions)
    dice.shuffle(places)
    body = dice.randbytes(REGION_BYTES)
    with rawnbd.Raw(array) as client:
        client.greet()
        client.go(volume)
        under_way = 0
        for place in places:
            client.request(rawnbd.WRITE, place * REGION_BYTES, REGION_BYTES, payload=body)
            under_way += 1
            while under_way >= 16 or (under_way and place == places[-1]):
                if client.reply().error:
                    raise RuntimeError("a write failed")
                under_way -= 1
        if client.call(rawnbd.FLUSH).error:
            raise RuntimeError("a flush failed")


def timed(work, *words):
    begin = time.monotonic()
    answer = work(*words)
    return time.monotonic() - begin, answer


def nbdcopy(array):
    subprocess.run(["nbdcopy", "--flush", array.uri("from"), array.uri("to")], check=True,
                   stdin=subprocess.DEVNULL, timeout=READY_LIMIT_S)


def part_resync(options):
    """The regions lie in a stretch of 4 MiB each, changed on the source; flushed at the end by both."""
    size = options.big << 30
    regions = random.Random(5).sample(range(size // STRETCH_BYTES), CHANGED_REGIONS)
    regions = [stretch * (STRETCH_BYTES // REGION_BYTES) + stretch % 64 for stretch in regions]
    changed = CHANGED_REGIONS * REGION_BYTES
    times = {"resync": [], "nbdcopy": []}
    with tempfile.TemporaryDirectory(prefix="duplex-bench-", dir=options.folder) as folder, \
            Array(Build(options.build), reactors=2, root=folder) as array:
        array.start()
        for device, names in (("d0", ("p", "from")), ("d1", ("s", "to"))):
            array.do("device", "add", array.path(device), "--name", device, "--size",
                     size + size // 1024 + changed + DEVICE_EXTRA_BYTES)
            for name, length in zip(names, (size, changed)):
                array.do("volume", "create", name, "--size", length, "--device", device)
        empty, _ = timed(array.do, "mirror", "create", "m", "p", "s", "--wait")
        for name in ("from", "to"):
            fio([], "--ioengine=nbd", "--uri=" + array.uri(name), "--rw=write", "--bs=1m", "--iodepth=4",
                "--refill_buffers", "--end_fsync=1")
        array.do("split", "m")
        scatter_regions(array, "p", regions, 0)
        first, _ = resync(array, changed)
        for number in range(options.rounds):
            array.do("split", "m")
            scatter_regions(array, "p", regions, number + 1)
            for kind in (("resync", "nbdcopy"), ("nbdcopy", "resync"))[number % 2]:
                if kind == "resync":
                    times[kind].append(resync(array, changed)[0])
                else:
                    times[kind].append(timed(nbdcopy, array)[0])
        array.do("mirror", "verify", "m", "--wait", limit=VERIFY_LIMIT_S)
        if array.do("mirror", "show", "m")["state"] != "SYNC":
            raise RuntimeError("the resync left a difference")
    ratios = [a / b for a, b in zip(times["resync"], times["nbdcopy"])]
    ratio = statistics.median(ratios)
    print(table(["what", "median s", "slowest s", "MB/s", "time to nbdcopy", "worst round", "target",
                 "verdict"], [
        [f"create a mirror of an empty volume of {options.big} GiB", f"{empty:.2f}", f"{empty:.2f}", "", "",
         "", f"under {EMPTY_TARGET_S:g} s", verdict(empty < EMPTY_TARGET_S)],
        [f"resync of {CHANGED_REGIONS} scattered regions, the target unmapped there", f"{first:.2f}",
         f"{first:.2f}", f"{changed / first / 1e6:.0f}",
         f"{first / statistics.median(times['nbdcopy']):.2f}", "", "", ""],
        [f"resync of {CHANGED_REGIONS} scattered regions", *speed(times["resync"], changed),
         f"{ratio:.2f}", f"{max(ratios):.2f}", f"at most {RESYNC_TARGET}", verdict(ratio <= RESYNC_TARGET)],
        [f"nbdcopy of {changed >> 30} GiB in one piece", *speed(times["nbdcopy"], changed), "1.00", "", "",
         ""]]))


def speed(seconds, length):
    middle = statistics.median(seconds)
    return f"{middle:.2f}", f"{max(seconds):.2f}", f"{length / middle / 1e6:.0f}"


def resync(array, changed):
    """Seconds until SYNC; the bytes must be those that changed."""
    took, _ = timed(array.do, "mirror", "resync", "m", "--wait")
    moved = array.do("job", "show", "m")["bytes_moved"]
    if moved != changed:
        raise RuntimeError(f"{moved} bytes moved, {changed} have changed")
    return took, moved


# Restart.

RESTART_HEAD = ["reactors", "ready, median s", "slowest s", "back in SYNC, median s", "slowest s",
                "MiB copied, most", "RSS idle MiB", "RSS idle after load MiB", "target", "verdict"]


def part_restart(options):
    """Both volumes mapped by a block in each extent, in random order; 1,024 stretches hot at the kill."""
    size = options.big << 30
    rows = []
    with tempfile.TemporaryDirectory(prefix="duplex-bench-", dir=options.folder) as folder, \
            Daemon(Build(options.build), root=folder) as array:
        array.start()
        for device, name in (("d0", "vol"), ("d1", "copy")):
            array.do("device", "add", array.path(device), "--name", device, "--size",
                     size + size // 1024 + DEVICE_EXTRA_BYTES)
            array.do("volume", "create", name, "--size", size, "--device", device)
        array.do("mirror", "create", "m", "vol", "copy", "--wait")
        begin = time.monotonic()
        scatter(array, size // EXTENT_BYTES)
        if {row["allocated"] for row in array.do("volume", "list")} != {size}:
            raise RuntimeError("the volumes are not fully mapped")
        print(f"{size // EXTENT_BYTES} extents of each volume mapped in {time.monotonic() - begin:.0f} s, RSS "
              f"then {array.memory_mib()[0]:.0f} MiB\n")
        for reactors in (1, 2):
            rows.append(restarts(array, reactors, options.rounds))
    print(table(RESTART_HEAD, rows))


def heat(array):
    fio([], "--ioengine=nbd", "--uri=" + array.uri("vol"), "--rw=randwrite", "--bs=4k", "--iodepth=16",
        "--time_based", "--runtime=1s")


def restarts(array, reactors, starts):
    array.reactors = reactors
    ready, synced, moved = [], [], []
    for _ in range(starts):
        heat(array)
        known = {job["id"] for job in array.do("job", "list")}
        array.kill()
        begin = time.monotonic()
        ready.append(array.start_timed()[0])
        while array.do("mirror", "show", "m")["state"] != "SYNC":
            time.sleep(0.01)
        synced.append(time.monotonic() - begin)
        moved.append(sum(job["bytes_moved"] or 0 for job in array.do("job", "list")
                         if job["id"] not in known))
    time.sleep(2)
    idle = array.memory_mib()[0]
    heat(array)
    time.sleep(2)
    loaded = array.memory_mib()[0]
    met = statistics.median(ready) < 2.0 and max(idle, loaded) <= 64
    return [reactors, f"{statistics.median(ready):.2f}", f"{max(ready):.2f}",
            f"{statistics.median(synced):.2f}", f"{max(synced):.2f}", f"{max(moved) / MIB:.0f}",
            f"{idle:.0f}", f"{loaded:.0f}", "ready under 2 s, 64 MiB", verdict(met)]


PARTS = {"path": part_path, "first": part_first, "hold": part_hold, "resync": part_resync,
         "restart": part_restart}


def parse():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--tmpfs", action="store_true")
    where.add_argument("--disk", metavar="DIR")
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.8, help="of each measurement of rates")
    parser.add_argument("--size", type=int, default=1024, help="MiB of each volume (path)")
    parser.add_argument("--big", type=int, default=1024, help="GiB of the volume (resync, restart)")
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--build", default=os.path.join(HERE, "..", "build"))
    options = parser.parse_args()
    options.folder = TMPFS if options.tmpfs else options.disk
    options.cpus = ("0", "0") if options.tmpfs else ("1", "0")
    return options


def main():
    options = parse()
    Duplexd.build = options.build
    if os.cpu_count() < 2 and (options.disk or options.part == "hold"):
        sys.exit("two CPUs are needed for this part")
    print(f"{machine([options.folder])}; {PARTS[options.part].__doc__ or options.part}\n")
    PARTS[options.part](options)


if __name__ == "__main__":
    main()
