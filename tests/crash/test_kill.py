"""kill -9 at any moment: what was acknowledged and flushed is there, and the array starts again.

The writer of each test remembers, per block, what it wrote and what was flushed. After the start a
block holds the flushed version or a later one.
"""
import os
import random
import threading
import time

from duplex import KIB, MIB, Array, connect
from marks import every_engine, slow, variants

BLOCK = 4 * KIB


class Writer(threading.Thread):
    """Numbered writes on one volume until the array dies."""

    def __init__(self, array, volume, blocks, seed):
        super().__init__(daemon=True)
        self.array, self.volume, self.blocks = array, volume, blocks
        self.dice = random.Random(seed)
        self.issued = {}   # block -> versions that may be there
        self.number = seed * 1_000_000
        self.flushed = 0
        self.trouble = None
        self.stopping = False

    @staticmethod
    def image(number):
        return number.to_bytes(8, "little") * (BLOCK // 8)

    def run(self):
        try:
            handle = connect(self.array, self.volume)
            while not self.stopping:
                acknowledged = {}
                for _ in range(self.dice.randrange(1, 40)):
                    self.number += 1
                    block = self.dice.randrange(self.blocks)
                    self.issued.setdefault(block, [0]).append(self.number)
                    handle.pwrite(self.image(self.number), block * BLOCK)
                    acknowledged[block] = self.number
                handle.flush()
                self.flushed += 1
                for block, number in acknowledged.items():
                    self.issued[block] = [number]
        except Exception as error:  # pylint: disable=broad-except
            self.trouble = error

    def check(self):
        """Reads every block; what is there is what counts from now on."""
        handle = connect(self.array, self.volume)
        everything = handle.pread(self.blocks * BLOCK, 0)
        for block, allowed in self.issued.items():
            data = everything[block * BLOCK:(block + 1) * BLOCK]
            number = int.from_bytes(data[:8], "little")
            if data != self.image(number) or number not in allowed:
                raise AssertionError(f"block {block} holds {number}, allowed are {allowed}")
            self.issued[block] = [number]
        handle.flush()
        handle.shutdown()


def kill_loop(array, volumes, rounds, seed):
    memory = {name: {} for name in volumes}
    flushed = 0
    dice = random.Random(seed)
    for turn in range(rounds):
        writers = []
        for index, name in enumerate(volumes):
            writer = Writer(array, name, 16 * MIB // BLOCK, seed * 100 + turn * 10 + index + 1)
            writer.issued = memory[name]
            writer.start()
            writers.append(writer)
        time.sleep(dice.uniform(0.02, 0.5))
        array.kill()
        for writer in writers:
            writer.join(60)
            assert not writer.is_alive(), "a client never learned that the array is gone"
            flushed += writer.flushed
        array.start()
        for writer in writers:
            writer.check()
    assert flushed > rounds, "too few flushes to prove anything"
    array.check_log()


@every_engine
def test_flushed_writes_survive_kills(build, **how):
    with Array(build, **how) as array:
        array.with_volume("a", "64M")
        array.do("volume", "create", "b", "--size", "64M")
        kill_loop(array, ("a", "b"), 8, 11 + how["reactors"])


@slow
@variants(*({"seed": seed} for seed in range(4)))
def test_flushed_writes_survive_many_kills(build, seed):
    with Array(build, reactors=2) as array:
        array.with_volume("a", "64M")
        array.do("device", "add", array.path("disk1"), "--size", "256M")
        array.do("volume", "create", "b", "--size", "64M")
        kill_loop(array, ("a", "b"), 25, 1000 + seed)


def test_verbs_are_atomic_across_kills(build):
    """Create, resize and delete while the array is killed: before or after, nothing between."""
    with Array(build) as array:
        array.with_volume()
        dice = random.Random(5)
        sizes = {"vol": 64 * MIB}
        for turn in range(15):
            doing = {}

            def verbs():
                for number in range(1000):  # the kill ends it
                    name = f"v{dice.randrange(4)}"
                    size = dice.choice((8, 16, 24)) * MIB
                    if name not in sizes:
                        doing[name] = size
                        words = ("volume", "create", name, "--size", size)
                    elif dice.random() < 0.5:
                        doing[name] = None
                        words = ("volume", "delete", name, "--yes")
                    else:
                        doing[name] = size
                        words = ("volume", "resize", name, "--size", size, "--discard", "--yes")
                    if array.run("--json", *words).code != 0:
                        return
                    if doing[name] is None:
                        del sizes[name]
                    else:
                        sizes[name] = doing[name]
                    doing.clear()

            worker = threading.Thread(target=verbs, daemon=True)
            worker.start()
            time.sleep(dice.uniform(0.05, 0.3))
            array.kill()
            worker.join(60)
            array.start()
            there = {v["name"]: v["size"] for v in array.do("volume", "list")}
            after = {k: v for k, v in {**sizes, **doing}.items() if v is not None}
            assert there in (sizes, after), (turn, there, sizes, doing)
            sizes = there


def test_a_killed_import_is_not_shown_as_done(build):
    with Array(build) as array:
        array.with_volume("vol", "512M", device_size="1G")
        source = array.path("big")
        with open(source, "wb") as file:
            for _ in range(32):
                file.write(os.urandom(16 * MIB))
        job = array.do("volume", "import", "vol", source)
        array.kill()
        array.start()
        job = array.do("job", "wait", job["id"], "--timeout", "60") if \
            array.do("job", "show", job["id"])["state"] == "running" else \
            array.do("job", "show", job["id"])
        if job["state"] == "done":
            handle = connect(array)
            with open(source, "rb") as file:
                for at in range(0, 512 * MIB, 16 * MIB):
                    assert handle.pread(16 * MIB, at) == file.read(16 * MIB), at
        else:
            assert job["state"] == "failed" and job["error"], job
