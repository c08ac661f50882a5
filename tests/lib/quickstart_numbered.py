#!/usr/bin/python3
"""Numbered writes on NBD exports and on mounted volumes, for ./quickstart.

  write URI FILE   writes block after block, flushes after every eight, and only when the flush is
                   acknowledged puts the highest number into FILE. Ends when the server is gone.
  check URI FILE   reads every block that FILE says was acknowledged and compares all its bytes.

And on the second halves of two exports, in turn, one write at a time, so that each depends on the one before:

  pair URI URI FILE   writes until it is ended. FILE gets a line for each acknowledged number: the
                      number, and when it was begun and acknowledged, in microseconds.
  cut URI URI FILE ASKED SUCCESS
                      finds the numbers that are there: they must be 0, 1, 2, ... without a gap, with all
                      that were acknowledged before ASKED and none that was begun after SUCCESS.
  spoil URI           overwrites some of every MiB.

The same on two file systems, a file on each that holds the last number:

  turn DIR DIR FILE
  turned DIR DIR FILE ASKED SUCCESS
"""
import hashlib
import itertools
import os
import sys
import time

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


def pair_place(handles, number):
    """Where a number of a pair stands: even ones on the first export, odd ones on the second."""
    handle = handles[number % 2]
    half = handle.get_size() // 2
    place = number // 2 * BLOCK
    return (handle, half + place) if place < half else None


def pair_content(number):
    return content((1 << 64) + number)  # none that write() writes


def write_in_turn(path, write_number):
    """write_number(n) returns when n is acknowledged, with False when there is no place for it."""
    with open(path, "w", buffering=1, encoding="ascii") as acknowledged:
        for number in itertools.count():
            begun = time.time_ns() // 1000
            if not write_number(number):
                print("%d numbers fill the exports" % number)
                return 1
            acknowledged.write("%d %d %d\n" % (number, begun, time.time_ns() // 1000))
            time.sleep(0.0005)
    return 0


def pair(handles, path):
    def write_number(number):
        place = pair_place(handles, number)
        if place:
            place[0].pwrite(pair_content(number), place[1])
        return place

    return write_in_turn(path, write_number)


def turn(folders, path):
    files = [os.open(folder + "/last-number", os.O_CREAT | os.O_WRONLY | os.O_DSYNC) for folder in folders]
    return write_in_turn(path, lambda number: os.pwrite(files[number % 2], b"%4096d" % number, 0))


def compare(there, gap, path, asked, success):
    """The numbers that are there must end between what FILE says of ASKED and of SUCCESS."""
    lines = acknowledged_numbers(path)
    before = [number for number, _, done in lines if done < int(asked)]
    after = [number for number, begun, _ in lines if begun > int(success)]
    first, last = (before[-1] if before else None), (there[-1] if there else None)
    text = "0 to %s there, 0 to %s acknowledged before" % (last, first)
    print(text + (", %d the first begun after" % after[0] if after else ""))
    if gap:
        print("not one point in time: " + gap)
        return 1
    return 0 if before and there and first <= last and not (after and after[0] <= last) else 1


def acknowledged_numbers(path):
    with open(path, encoding="ascii") as acknowledged:
        return [[int(word) for word in line.split()] for line in acknowledged if line.endswith("\n")]


def cut(handles, path, asked, success):
    there = []
    for number in range(acknowledged_numbers(path)[-1][0] + 2):  # one may be under way
        place = pair_place(handles, number)
        if place and place[0].pread(BLOCK, place[1]) == pair_content(number):
            there.append(number)
    missing = sorted(set(range(there[-1] if there else 0)) - set(there))
    return compare(there, missing and "%s missing" % missing[:10], path, asked, success)


def turned(folders, path, asked, success):
    there = []
    for folder in folders:
        with open(folder + "/last-number", encoding="ascii") as file:
            there.append(int(file.read()))
    there.sort()
    return compare(there, there[1] - there[0] != 1 and "%d on one, %d on the other" % tuple(there), path, asked, success)


def spoil(handle):
    for place in range(0, handle.get_size(), 1 << 20):
        handle.pwrite(b"spoiled!" * (BLOCK // 8), place)
    handle.flush()
    return 0


def main():
    verb, words = sys.argv[1], sys.argv[2:]
    if verb in ("turn", "turned"):
        return {"turn": turn, "turned": turned}[verb](words[:2], *words[2:])
    handles = []
    for uri in [word for word in words if word.startswith("nbd")]:
        handles.append(nbd.NBD())
        handles[-1].connect_uri(uri)
    rest = words[len(handles):]
    if verb in ("pair", "cut"):
        return {"pair": pair, "cut": cut}[verb](handles, *rest)
    if verb == "spoil":
        return spoil(handles[0])
    return {"write": write, "check": check}[verb](handles[0], handles[0].get_size() // BLOCK, *rest)


sys.exit(main())
