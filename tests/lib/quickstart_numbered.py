#!/usr/bin/python3
"""Numbered writes on an NBD export, for ./quickstart.

  write URI FILE   writes block after block, flushes after every eight, and only when the flush is
                   acknowledged puts the highest number into FILE. Ends when the server is gone.
  check URI FILE   reads every block that FILE says was acknowledged and compares all its bytes.
"""
import hashlib
import sys

import nbd

BLOCK = 4096
BATCH = 8
STRIDE = 40503  # odd, so that number * STRIDE visits every block of a power of two; spreads over the volume


def content(number):
    """The block of a number: it names itself and depends on it in every byte."""
    seed = hashlib.sha256(b"%d" % number).digest()
    return (b"%032d" % number) + seed * (BLOCK // len(seed) - 1)


def offset(number, blocks):
    return number * STRIDE % blocks * BLOCK


def write(handle, blocks, path):
    done = 0
    with open(path, "w", buffering=1, encoding="ascii") as acknowledged:
        try:
            while done + BATCH <= blocks:
                for number in range(done, done + BATCH):
                    handle.pwrite(content(number), offset(number, blocks))
                handle.flush()
                done += BATCH
                acknowledged.write("%d\n" % done)
        except nbd.Error:
            pass  # the array was killed: what is in the file is what it had acknowledged
    print("%d writes acknowledged and flushed" % done)
    return 0 if done else 1


def check(handle, blocks, path):
    with open(path, encoding="ascii") as acknowledged:
        done = int(acknowledged.read().split()[-1])
    lost = [n for n in range(done) if handle.pread(BLOCK, offset(n, blocks)) != content(n)]
    print("%d acknowledged, %d there" % (done, done - len(lost)))
    if lost:
        print("first lost: number %d at byte %d" % (lost[0], offset(lost[0], blocks)))
    return 1 if lost else 0


def main():
    verb, uri, path = sys.argv[1:]
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return {"write": write, "check": check}[verb](handle, handle.get_size() // BLOCK, path)


sys.exit(main())
