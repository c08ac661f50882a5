"""kill -9 of an array with mirrors at any moment: under load, inside splits and resyncs.

After each start: all that was flushed is there; a mirror that was in SYNC is in SYNC again by itself
and has copied at most the stretches that were hot; `mirror verify` finds no difference; then a split
shows that the targets hold byte for byte what the sources hold.
"""
import mmap
import random
import threading
import time

from duplex import MIB, Array, Refused, connect
from marks import every_engine, slow, variants
from test_kill import BLOCK, Writer
from test_mirrors import mirror, wait_for

STRETCH = 4 * MIB        # what one hot mark covers
TOUCHED = 16 * MIB       # the part of each volume that the load writes
VOLUME = 64 * MIB        # all of it holds data: a full copy would move it all
PIECE = 16 * MIB


class Verbs(threading.Thread):
    """Splits and resyncs the mirrors, all at once or one, until the array dies."""

    def __init__(self, array, mirrors, seed):
        super().__init__(daemon=True)
        self.array, self.mirrors, self.dice = array, mirrors, random.Random(seed)
        self.stopping = False
        self.doing = None     # the verb that was under way, with its mirrors
        self.cuts = self.resyncs = 0

    def run(self):
        split = {name for name in self.mirrors if self._state(name) == "SPLIT"}
        while not self.stopping:
            time.sleep(self.dice.uniform(0, 0.03))
            chosen = self.mirrors if self.dice.random() < 0.6 else [self.dice.choice(self.mirrors)]
            verb = "resync" if split & set(chosen) else "split"
            if verb == "split" and not self._wait(chosen):
                return
            self.doing = verb, chosen
            words = ("mirror", "resync") if verb == "resync" else ("split",)
            if self.array.run("--json", *words, *chosen).code != 0:
                return
            self.doing = None
            if verb == "split":
                self.cuts += 1
                split |= set(chosen)
                self._write_targets(chosen)
            else:
                self.resyncs += 1
                split -= set(chosen)

    def _state(self, name):
        return mirror(self.array, name)["state"]

    def _wait(self, names):
        """Whether all of them reach SYNC."""
        try:
            while any(self._state(name) != "SYNC" for name in names) and not self.stopping:
                time.sleep(0.005)
        except (Refused, TypeError):
            return False
        return not self.stopping

    def _write_targets(self, names):
        """A few blocks of the targets: a resync has to take them back."""
        import nbd  # pylint: disable=import-outside-toplevel
        try:
            for name in names:
                handle = connect(self.array, "s" + name[1:])
                for _ in range(self.dice.randrange(4)):
                    block = self.dice.randrange(TOUCHED // BLOCK)
                    handle.pwrite(b"\xee" * BLOCK, block * BLOCK)
                handle.shutdown()
        except nbd.Error:
            pass  # killed


def prepared(array, count):
    """Volumes v0.. full of data with mirrors m0.. to s0.., all in SYNC."""
    array.start()
    array.do("device", "add", array.path("disk0"), "--size", "1G")
    array.do("device", "add", array.path("disk1"), "--size", "1G")
    for kind, device in (("v", "disk0"), ("s", "disk1")):
        for number in range(count):
            array.do("volume", "create", f"{kind}{number}", "--size", VOLUME, "--device", device)
    for number in range(count):
        handle = connect(array, f"v{number}")
        handle.pwrite(bytes(TOUCHED), 0)
        filler = random.Random(number).randbytes(PIECE)
        for at in range(TOUCHED, VOLUME, PIECE):
            handle.pwrite(filler, at)
        handle.flush()
        handle.shutdown()
        array.do("mirror", "create", f"m{number}", f"v{number}", f"s{number}", "--wait")


def load(array, memory, seed):
    writers = []
    for number, issued in enumerate(memory):
        writer = Writer(array, f"v{number}", TOUCHED // BLOCK, seed * 10 + number + 1)
        writer.issued = issued
        writer.start()
        writers.append(writer)
    return writers


def moved(array, known):
    """Bytes moved by jobs that are not among the known ones, by mirror."""
    sums = {}
    for job in array.do("job", "list"):
        if job["kind"] == "copy" and job["id"] not in known:
            sums[job["mirror"]] = sums.get(job["mirror"], 0) + (job["bytes_moved"] or 0)
    return sums


def equal(array, number):
    for at in range(0, VOLUME, PIECE):
        handles = [connect(array, f"{kind}{number}") for kind in "vs"]
        there = [handle.pread(PIECE, at) for handle in handles]
        for handle in handles:
            handle.shutdown()
        if there[0] != there[1]:
            first = next(i for i in range(PIECE) if there[0][i] != there[1][i])
            raise AssertionError(f"v{number} and s{number} differ at {at + first}")


def judge_start(array, writers, before, doing, known):
    """Just after a start: contents, states, bytes. `before`: the states when the kill came."""
    for writer in writers:
        writer.check()
    under_way = set(doing[1]) if doing else set()
    for number in range(len(writers)):
        name = f"m{number}"
        now = mirror(array, name)["state"]
        if before[name] != "SPLIT" and now != "SPLIT":
            wait_for(array, name, "SYNC")   # by itself
        elif name not in under_way:
            assert now == before[name], (name, before[name], now)
    for name, count in moved(array, known).items():
        assert count <= TOUCHED, f"{name} copied {count}: more than {TOUCHED // STRETCH} hot stretches"


def judge_mirrors(array, count):
    """Brings all to SYNC; verify, and the test's own comparison, find them equal."""
    for number in range(count):
        name = f"m{number}"
        if mirror(array, name)["state"] == "SPLIT":
            array.do("mirror", "resync", name, "--disconnect", "--wait")
        wait_for(array, name, "SYNC")
        array.do("mirror", "verify", name, "--wait")
        job = array.do("job", "show", name)
        assert (job["kind"], job["state"]) == ("verify", "done"), job
        info = mirror(array, name)
        assert (info["state"], info["changed_bytes"]) == ("SYNC", 0), info
    array.do("split", *[f"m{number}" for number in range(count)])
    for number in range(count):
        equal(array, number)
    array.do("mirror", "resync", *[f"m{number}" for number in range(count)], "--disconnect", "--wait")


def states(array):
    return {row["name"]: row["state"] for row in array.do("mirror", "list")}


def kill_loop(array, count, rounds, seed):
    """The numbers of splits and of resyncs that ended, and of kills inside one of them.

    Mutations seen to fail: a target changed behind the back of the array
    (test_a_difference_behind_its_back_is_found); TOUCHED / 8 as the bound of the bytes.
    """
    memory = [{} for _ in range(count)]
    dice = random.Random(seed)
    flushed = cuts = resyncs = inside = copied = 0
    for turn in range(rounds):
        writers = load(array, memory, seed * 100 + turn)
        verbs = Verbs(array, [f"m{number}" for number in range(count)], seed * 100 + turn)
        if turn % 4:
            verbs.start()
        time.sleep(dice.uniform(0.05, 0.7))
        # A verb that ends between these lines counts as under way: nothing is known of its mirrors.
        began = verbs.doing, verbs.cuts, verbs.resyncs
        before = states(array)
        known = {job["id"] for job in array.do("job", "list")}
        verbs.stopping = True
        array.kill()
        doing = verbs.doing or began[0]
        if (verbs.cuts, verbs.resyncs) != began[1:]:
            doing = "verbs", verbs.mirrors
        for writer in writers:
            writer.join(60)
            assert not writer.is_alive(), "a client never learned that the array is gone"
            flushed += writer.flushed
        if turn % 4:
            verbs.join(60)
        array.start()
        judge_start(array, writers, before, doing, known)
        copied += sum(moved(array, known).values())
        judge_mirrors(array, count)
        cuts, resyncs, inside = cuts + verbs.cuts, resyncs + verbs.resyncs, inside + bool(doing)
    assert flushed > rounds, "too few flushes to prove anything"
    assert copied, "no start had anything to copy"
    array.check_log()
    return cuts, resyncs, inside


@every_engine
def test_mirrors_survive_kills_under_load(build, **how):
    with Array(build, **how) as array:
        prepared(array, 2)
        cuts, resyncs, _ = kill_loop(array, 2, 6, 20 + how["reactors"])
        assert cuts + resyncs, "no verb ended before its kill"


@slow
@variants(*({"seed": seed} for seed in range(3)))
def test_mirrors_survive_many_kills(build, seed):
    with Array(build, reactors=2) as array:
        prepared(array, 3)
        counts = kill_loop(array, 3, 25, 2000 + seed)
        assert all(counts), f"no kill met a split or a resync: {counts}"


def test_a_difference_behind_its_back_is_found(build):
    """What judges the mirrors above, `mirror verify` and the comparison, sees one changed byte."""
    with Array(build) as array:
        prepared(array, 1)
        mark = random.Random(7).randbytes(BLOCK)
        handle = connect(array, "v0")
        handle.pwrite(mark, TOUCHED + 5 * BLOCK)
        handle.shutdown()
        judge_mirrors(array, 1)
        array.stop()
        with open(array.path("disk1"), "r+b") as file, mmap.mmap(file.fileno(), 0) as disk:
            disk[disk.find(mark) + 100] ^= 1
        array.start()
        wait_for(array, "m0", "SYNC")
        array.do("split", "m0")
        try:
            equal(array, 0)
        except AssertionError as error:
            assert str(TOUCHED + 5 * BLOCK + 100) in str(error), error
        else:
            raise AssertionError("the comparison has seen nothing")
        array.do("mirror", "resync", "m0", "--disconnect", "--wait")
        array.run("mirror", "verify", "m0", "--wait")
        info = mirror(array, "m0")
        assert info["state"] == "SUSPENDED" and str(TOUCHED) in info["reason"], info
