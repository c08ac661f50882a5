"""A small database over two volumes, a log on one and data on the other, and its recovery.

Accounts hold numbers whose sum is zero; a transaction moves an amount from one to another. Rules as
of any database with a write-ahead log: a record is written and flushed (then the transaction is
committed) before a page with its change is; pages are written at any later time; a checkpoint writes
and flushes all pages, then puts its number into the head of the log. `acknowledged` counts commits.
"""
import random
import struct
import zlib

from dependent import BLOCK, Writer, Wrong, check_range
from duplex import connect

ACCOUNTS = 64
READ_BLOCKS = 128
RECORD = struct.Struct("<QHHi")   # number, from, to, amount
PAGE = struct.Struct("<Qq")       # number of the last change, balance


def sealed(data):
    data = data.ljust(BLOCK - 4, b"\0")
    return data + zlib.crc32(data).to_bytes(4, "little")


def is_sealed(block):
    return zlib.crc32(block[:-4]) == int.from_bytes(block[-4:], "little")


class Database(Writer):
    """Transactions one after the other on the volumes `log` and `data`, both empty."""

    def __init__(self, array, log, data, seed, checkpoint_every=50):
        super().__init__()
        self.log, self.data = connect(array, log), connect(array, data)
        self.blocks = self.log.get_size() // BLOCK - 1
        self.dice = random.Random(seed)
        self.checkpoint_every = checkpoint_every
        self.history = [None]                # of each transaction: from, to, amount
        self.pages = [(0, 0)] * ACCOUNTS     # in memory
        self.dirty = set()

    def step(self):
        giver, taker = self.dice.sample(range(ACCOUNTS), 2)
        amount = self.dice.randrange(1, 1000)
        self.history.append((giver, taker, amount))
        self.begun += 1
        self.log.pwrite(sealed(RECORD.pack(self.begun, giver, taker, amount)),
                        place(self.begun, self.blocks))
        self.log.flush()
        self.acknowledged = self.begun
        for account, change in ((giver, -amount), (taker, amount)):
            self.pages[account] = (self.begun, self.pages[account][1] + change)
            self.dirty.add(account)
        for account in self.dice.sample(sorted(self.dirty), self.dice.randrange(3)):
            self._write_page(account)
        if self.begun % self.checkpoint_every == 0:
            for account in sorted(self.dirty):
                self._write_page(account)
            self.data.flush()
            self.log.pwrite(sealed(self.begun.to_bytes(8, "little")), 0)
            self.log.flush()

    def _write_page(self, account):
        self.data.pwrite(sealed(PAGE.pack(*self.pages[account])), account * BLOCK)
        self.dirty.discard(account)

    def balances(self, count):
        """After the first `count` transactions."""
        sums = [0] * ACCOUNTS
        for giver, taker, amount in self.history[1:count + 1]:
            sums[giver] -= amount
            sums[taker] += amount
        return sums


def place(number, blocks):
    return (1 + number % blocks) * BLOCK


def block_of(content, index, what):
    """A block of `content`; None when it was never written."""
    block = content[index * BLOCK:(index + 1) * BLOCK]
    if block == bytes(BLOCK):
        return None
    if not is_sealed(block):
        raise Wrong(f"{what} is torn")
    return block


def records_after(handle, number, blocks):
    """The unbroken run of records behind `number`."""
    found = []
    while True:
        first = place(number + 1, blocks)
        content = handle.pread(min(READ_BLOCKS * BLOCK, (blocks + 1) * BLOCK - first), first)
        for index in range(len(content) // BLOCK):
            block = block_of(content, index, f"record {number + 1}")
            record = RECORD.unpack_from(block) if block else (0,)
            if record[0] != number + 1:
                return found
            found.append(record)
            number += 1


def recover(array, log, data, database, least, most):
    """Starts from the volumes `log` and `data` as after a crash; the number of pages it mended."""
    handle, pages_handle = connect(array, log), connect(array, data)
    blocks = handle.get_size() // BLOCK - 1
    head = block_of(handle.pread(BLOCK, 0), 0, "the head of the log")
    checkpoint = int.from_bytes(head[:8], "little") if head else 0
    records = records_after(handle, checkpoint, blocks)
    last = checkpoint + len(records)
    content, pages = pages_handle.pread(ACCOUNTS * BLOCK, 0), []
    handle.shutdown()
    pages_handle.shutdown()
    for account in range(ACCOUNTS):
        block = block_of(content, account, f"page {account}")
        pages.append(list(PAGE.unpack_from(block)) if block else [0, 0])
    newest = max(number for number, _ in pages)
    if newest > last:
        raise Wrong(f"the data is ahead of the log: a page has change {newest}, the log ends at {last}")
    mended = set()
    for number, giver, taker, amount in records:
        for account, change in ((giver, -amount), (taker, amount)):
            if pages[account][0] < number:
                pages[account] = [number, pages[account][1] + change]
                mended.add(account)
    balances = [balance for _, balance in pages]
    if sum(balances) != 0 or balances != database.balances(last):
        raise Wrong(f"after recovery to transaction {last} (checkpoint {checkpoint}) the balances "
                    f"are wrong, their sum is {sum(balances)}")
    check_range(last, least, most)
    return len(mended)
