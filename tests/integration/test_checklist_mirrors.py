"""The checklist of mirrors and of their atomic split on one array, item by item, with real hosts.

 1  all mirrors of a command are split, or with one bad entry none    10  a resync copies the union
 2  dependent writes over N volumes: a prefix is on the targets       12  names
 3  several writers, dependent on each other: a prefix of each        13  restarts
 4  no write fails or waits longer than the limit                     16  who may write to a target
 5  all before the command are there, none begun after its reply      18  two splits at once
                                                                      19  a database over two volumes
The test of an item names it. Items left out concern several arrays.
"""
import random
import statistics
import threading
import time

from database import Database, recover
from dependent import BLOCK, Api, Delays, Hog, Neighbour, RoundRobin, Wrong, image
from duplex import KIB, MIB, Array, connect
from marks import slow
from test_lifecycle import expect
from test_mirrors import mirror, read, refuses_hosts, wait_for, with_volumes, write

REGION = 64 * KIB
HOLD_LIMIT_MS = 1000   # a test machine may stop a thread of ours for a tenth of a second


def mirrored(array, count, size="64M"):
    """Volumes v0.. and their targets s0.., mirrors m0.. in SYNC, in a group `all`."""
    names = [f"{kind}{number}" for kind in "vs" for number in range(count)]
    with_volumes(array, *names, size=size)
    for number in range(count):
        array.do("mirror", "create", f"m{number}", f"v{number}", f"s{number}", "--wait")
    array.do("group", "create", "all", *[f"m{number}" for number in range(count)])
    return array


def hog(array, count):
    """Keeps the reactor of v1 busy; v0 lies on the other one."""
    reactor = {row["name"]: row["reactor"] for row in array.do("volume", "list")}
    assert reactor["v0"] != reactor["v1"] and count > 1, reactor
    for name in ("hog0", "hog1"):
        array.do("volume", "create", name, "--size", "16M")
        if array.do("volume", "show", name)["reactor"] == reactor["v1"]:
            return Hog(array, name)
    raise AssertionError("no volume lies on the reactor of v1")


def states(array):
    return {row["name"]: row["state"] for row in array.do("mirror", "list")}


def targets(array, count, length):
    return [read(array, f"s{number}", length) for number in range(count)]


def prefixes(build, splits, count=4):
    """Splits under a chain of dependent writes; every target is judged each time."""
    with mirrored(Array(build), count) as array:
        api, dice = Api(array), random.Random(splits)
        mirrors = [f"m{number}" for number in range(count)]
        chain = RoundRobin(array, [f"v{number}" for number in range(count)])
        chain.start()
        in_the_middle = 0
        with hog(array, count):
            for _ in range(splits):
                chain.after(dice.randrange(1, 300))
                least = chain.acknowledged
                cut = api.split(*dice.sample(mirrors, count), max_hold_ms=HOLD_LIMIT_MS)
                most = chain.begun
                expect([m["state"] for m in cut["members"]], ["SPLIT"] * count)
                chain.after(20)
                last = chain.judge(targets(array, count, chain.slots * BLOCK), least, most)
                in_the_middle += least < last
                api.resync(*mirrors)
        chain.stop()
        assert in_the_middle > splits // 4, "hardly a split met a write: nothing is proven"
        api.split("all")
        expect(targets(array, count, MIB), [read(array, f"v{number}", MIB) for number in range(count)])
        array.check_log()


def test_item_2_and_5_dependent_writes_leave_a_prefix_on_the_targets(build):
    """Items 2 and 5: ten splits over four volumes on two reactors.

    Mutations seen to fail: each reactor cuts and opens its gates at once, the second one told 1 ms
    later (CutRound::Part::close_gates, CutRound::stamp; the delay alone passes); and the images of
    test_the_judges_find_what_they_should.
    """
    prefixes(build, 10)


@slow
def test_item_2_and_5_a_hundred_splits_of_dependent_writes(build):
    prefixes(build, 100)


def ring_of_writers(build, splits, count=4):
    with mirrored(Array(build), count) as array:
        api, dice = Api(array), random.Random(splits)
        mirrors = [f"m{number}" for number in range(count)]
        ring = [Neighbour(array, f"v{number}") for number in range(count)]
        for number, writer in enumerate(ring):
            writer.follow(array, f"v{number - 1 if number else count - 1}", ring[number - 1])
        for writer in ring:
            writer.start()
        with hog(array, count):
            for _ in range(splits):
                ring[0].after(dice.randrange(1, 100))
                least = [writer.acknowledged for writer in ring]
                api.split(*mirrors, max_hold_ms=HOLD_LIMIT_MS)
                most = [writer.begun for writer in ring]
                for writer in ring:
                    writer.after(5)
                judge_ring(ring, targets(array, count, ring[0].slots * BLOCK), least, most)
                api.resync(*mirrors)
        for writer in ring:
            writer.stop()
            assert writer.seen[-1] > splits, "a writer saw nothing of its neighbour"
        array.check_log()


def judge_ring(ring, contents, least, most):
    found = [writer.judge(*each) for writer, *each in zip(ring, contents, least, most)]
    for number, (last, seen) in enumerate(found):
        if found[number - 1][0] < seen:
            raise Wrong(f"write {last} of volume {number} is there; its writer had read write {seen} "
                        f"of the volume before, of which only {found[number - 1][0]} are there")


def test_item_3_writers_that_read_each_other_are_cut_at_one_point(build):
    """Item 3: four writers, each depends on what it has read of the one before it.

    Mutations: as in item 2.
    """
    ring_of_writers(build, 10)


@slow
def test_item_3_a_hundred_splits_of_writers_that_read_each_other(build):
    ring_of_writers(build, 100)


def refused_by_a_judge(judge, *what):
    try:
        judge(*what)
    except Wrong as wrong:
        return str(wrong)
    raise AssertionError("the judge has seen nothing wrong")


def test_the_judges_find_what_they_should(build):
    """The checkers of items 2, 3 and 5, on images that a wrong array would leave."""
    with mirrored(Array(build), 2) as array:
        chain = RoundRobin(array, ["v0", "v1"], slots=8)
        for _ in range(40):
            chain.step()
        good = [read(array, f"v{number}", 8 * BLOCK) for number in range(2)]
        expect(chain.judge(good, 40, 40), 40)
        assert "acknowledged" in refused_by_a_judge(chain.judge, good, 41, 41)
        assert "after the reply" in refused_by_a_judge(chain.judge, good, 30, 39)
        chain.step()  # on volume 1
        late = [good[0], read(array, "v1", 8 * BLOCK)]
        expect(chain.judge(late, 40, 41), 41)
        chain.step()
        late = [read(array, "v0", 8 * BLOCK), good[1]]
        assert "no prefix" in refused_by_a_judge(chain.judge, late, 40, 42)
        torn = [good[0][:100] + good[0][200:300] + good[0][200:], good[1]]
        torn[0] = torn[0][:8 * BLOCK]
        assert "torn" in refused_by_a_judge(chain.judge, torn, 40, 40)
        array.stop()
        array.start()
        write(array, "v0", bytes(MIB))
        write(array, "v1", bytes(MIB))
        ring = [Neighbour(array, "v0", slots=8), Neighbour(array, "v1", slots=8)]
        ring[0].follow(array, "v1", ring[1])
        ring[1].follow(array, "v0", ring[0])
        for _ in range(20):
            ring[0].step()
            ring[1].step()
        contents = [read(array, "v0", 8 * BLOCK), read(array, "v1", 8 * BLOCK)]
        judge_ring(ring, contents, [20, 20], [20, 20])
        older = bytearray(contents[0])
        older[20 % 8 * BLOCK:(20 % 8 + 1) * BLOCK] = image(12, ring[0].seen[12])
        assert "had read write 20" in refused_by_a_judge(
            judge_ring, ring, [bytes(older), contents[1]], [19, 20], [20, 20])


def test_item_4_no_write_fails_or_is_held_up_beyond_the_limit(build):
    """Item 4: members and a volume outside the set, twenty splits and resyncs.

    Mutations: test_the_judge_of_delays_finds_long_ones.
    """
    with mirrored(Array(build), 3) as array:
        api = Api(array)
        inside = RoundRobin(array, ["v0", "v1"])
        outside = RoundRobin(array, ["v2"])
        inside.start()
        outside.start()
        stretches, holds = [], []
        for _ in range(20):
            inside.after(50)
            outside.after(50)
            begin = time.monotonic()
            holds.append(api.split("m0", "m1", max_hold_ms=HOLD_LIMIT_MS)["hold_us"])
            stretches.append((begin, time.monotonic()))
            outside.after(5)
            api.resync("m0", "m1")
        inside.stop()
        outside.stop()
        judge_delays(inside.delays, outside.delays, stretches)
        assert max(holds) < HOLD_LIMIT_MS * 1000, holds
        expect(states(array)["m2"], "SYNC", "the mirror outside")


def judge_delays(inside, outside, stretches):
    """The set's longest delay is below the limit; outside it a split is not felt at all: the median
    of the writes that met one is that of the others, but for what the machine does."""
    assert inside.longest() < HOLD_LIMIT_MS / 1000, inside.longest()
    met, others = outside.during(stretches)
    assert len(met) >= len(stretches) // 2, "too few writes met a split"
    assert statistics.median(met) < 3 * statistics.median(others) + 0.002, (
        statistics.median(met), statistics.median(others))
    assert max(met) < max(max(others), HOLD_LIMIT_MS / 1000), max(met)


def test_the_judge_of_delays_finds_long_ones(_build):
    stretches = [(10 * turn, 10 * turn + 0.1) for turn in range(1, 9)]

    def delays(near, elsewhere):
        made = Delays()
        for begin, _ in stretches:
            made.add(begin, begin + near)
            made.add(begin + 5, begin + 5 + elsewhere)
        return made

    good = delays(0.001, 0.001)
    judge_delays(good, good, stretches)
    for inside, outside in ((delays(0.001, 1.5), good), (good, delays(0.02, 0.001)),
                            (good, delays(1.5, 0.7))):
        try:
            judge_delays(inside, outside, stretches)
        except AssertionError:
            continue
        raise RuntimeError("the judge has seen nothing")


def test_item_1_all_mirrors_of_a_command_or_none(build):
    """Item 1: five at one cut; with one bad entry all five stay in SYNC and the entry is named."""
    with mirrored(Array(build), 5, size="16M") as array:
        five = [f"m{number}" for number in range(5)]
        for bad in ("nobody", "v0"):
            error = array.refused("split", *five[:3], bad, *five[3:])
            assert bad in error["message"], error
            expect(set(states(array).values()), {"SYNC"}, bad)
        array.do("split", "m3")
        error = array.refused("split", *five)
        assert "m3" in error["message"], error
        expect([states(array)[name] for name in five], ["SYNC", "SYNC", "SYNC", "SPLIT", "SYNC"])
        array.do("mirror", "resync", "m3", "--wait")
        cut = array.do("split", *five)
        expect((sorted(m["name"] for m in cut["members"]), set(states(array).values())),
               (five, {"SPLIT"}))
        expect({mirror(array, name)["cut"] for name in five}, {cut["cut"]}, "one cut")


def test_item_10_a_resync_copies_the_union_of_what_changed(build):
    """Item 10: regions changed on P, on S and on both; bytes moved: each of them once, no others.

    Mutation: one region of S alone is left out of `touched`.
    """
    with mirrored(Array(build), 2) as array:
        for name in ("v0", "v1"):
            write(array, name, random.Random(1).randbytes(64 * MIB))
        array.do("split", "all")
        dice = random.Random(2)
        union = 0
        for number in range(2):
            touched = {}
            for volume, count in ((f"v{number}", 70), (f"s{number}", 60)):
                handle = connect(array, volume)
                for region in dice.sample(range(64 * MIB // REGION), count):
                    handle.pwrite(dice.randbytes(BLOCK), region * REGION + dice.randrange(16) * BLOCK)
                    touched.setdefault(region, []).append(volume)
                handle.shutdown()
            assert any(len(by) == 2 for by in touched.values()), "no region changed on both sides"
            info = mirror(array, f"m{number}")
            expect((info["changed_bytes_source"], info["changed_bytes_target"]),
                   (70 * REGION, 60 * REGION))
            union += len(touched) * REGION
        array.do("mirror", "resync", "all", "--wait")
        jobs = [job for job in array.do("job", "list") if job["kind"] == "copy"][-2:]
        expect(sum(job["bytes_moved"] for job in jobs), union, "bytes moved")
        array.do("split", "all")
        for number in range(2):
            for at in range(0, 64 * MIB, 16 * MIB):
                there = [read(array, f"{kind}{number}", 16 * MIB, at) for kind in "vs"]
                assert there[0] == there[1], (number, at)


def test_item_12_names_stand_for_their_mirrors(build):
    """Item 12: by name as by ids; unknown names, members not in SYNC, duplicates."""
    with mirrored(Array(build), 3, size="16M") as array:
        array.do("group", "create", "two", "m0", "m1")
        array.do("group", "create", "late", "m1", "m2")
        by_name = array.do("split", "two", "--access", "ro")
        array.do("mirror", "resync", "two", "--wait")
        pairs = array.path("pairs")
        with open(pairs, "w", encoding="ascii") as file:
            for number in range(2):
                for kind in "vs":
                    file.write("0x400104,%s\n" % array.do("volume", "show", f"{kind}{number}")["id"])
        by_ids = array.do("split", "--pairs", pairs, "--access", "ro")
        same = [sorted((m["name"], m["target"], m["state"]) for m in cut["members"])
                for cut in (by_name, by_ids)]
        expect(same[0], same[1], "by name as by ids")
        expect(states(array), {"m0": "SPLIT", "m1": "SPLIT", "m2": "SYNC"})
        assert "m1" in array.refused("split", "late")["message"], "a member that is not in SYNC"
        assert "unknown" in array.refused("split", "unknown", "m2")["message"]
        expect(states(array)["m2"], "SYNC")
        array.do("mirror", "resync", "two", "--wait")
        cut = array.do("split", "two", "late", "m1", "all")
        expect(sorted(m["name"] for m in cut["members"]), ["m0", "m1", "m2"], "each once")


def test_item_13_names_and_states_survive_restarts(build):
    """Item 13: after a clean stop and after kill -9 every mirror, group and cut is what it was."""
    with mirrored(Array(build), 3, size="16M") as array:
        array.do("group", "create", "two", "m0", "m2")
        array.do("split", "m1", "--access", "ro")
        array.do("split", "m2")
        write(array, "v1", b"p" * MIB)
        write(array, "s2", b"s" * MIB, 4 * MIB)
        write(array, "v0", b"x" * MIB)
        before = durable(array)
        array.stop()
        array.start()
        expect(durable(array), before, "after a clean stop")
        array.kill()
        array.start()
        wait_for(array, "m0", "SYNC")
        after = durable(array)
        for was, now in zip(before[0], after[0]):
            # What was hot at the kill counts as changed: whole stretches of 4 MiB, never less.
            for key in ("changed_bytes", "changed_bytes_source", "changed_bytes_target"):
                assert was.pop(key) <= now.pop(key) <= 16 * MIB * 2, (was["name"], key)
        expect(after, before, "after kill -9")
        assert read(array, "s1", MIB) == bytes(MIB) and read(array, "s2", MIB, 4 * MIB) == b"s" * MIB


def durable(array):
    """What the array says of mirrors, groups and cuts."""
    return array.do("mirror", "list"), array.do("group", "list"), array.do("cut", "list")


def test_item_16_a_target_in_sync_is_closed_to_hosts_and_a_split_one_records(build):
    """Item 16."""
    with mirrored(Array(build), 1, size="16M") as array:
        assert refuses_hosts(array, "s0"), "a host has opened a target in SYNC"
        array.do("split", "m0")
        write(array, "s0", b"s" * BLOCK, 5 * REGION)
        info = mirror(array, "m0")
        expect((info["changed_bytes_source"], info["changed_bytes_target"]), (0, REGION))
        expect(read(array, "v0", BLOCK, 5 * REGION), bytes(BLOCK), "the source")
        array.do("mirror", "resync", "m0", "--wait")
        array.do("split", "m0", "--access", "ro")
        expect(read(array, "s0", BLOCK, 5 * REGION), bytes(BLOCK), "taken back by the resync")


def test_item_18_two_overlapping_splits_at_once(build):
    """Item 18: one succeeds, the other is refused and leaves its mirrors alone; no deadlock."""
    with mirrored(Array(build), 3, size="16M") as array:
        api, sets = Api(array), (["m0", "m1"], ["m2", "m1"])
        chain = RoundRobin(array, ["v0", "v1", "v2"])
        chain.start()
        winners, codes = [0, 0], set()
        for turn in range(20):
            answers = [None, None]
            start = threading.Barrier(2)

            def one(which):
                start.wait()
                answers[which] = api.post("splits", {"names": sets[which],
                                                     "max_hold_ms": HOLD_LIMIT_MS})

            threads = [threading.Thread(target=one, args=(which,))
                       for which in ((0, 1), (1, 0))[turn % 2]]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            won = [which for which in (0, 1) if answers[which][0] == 200]
            assert len(won) == 1, answers
            winners[won[0]] += 1
            error = answers[1 - won[0]][1]["error"]
            codes.add(error["code"])
            assert error["code"] in ("e_busy", "e_state") and "m1" in error["message"], error
            now = states(array)
            expect([now[name] for name in sets[won[0]]], ["SPLIT", "SPLIT"])
            expect(now[sets[1 - won[0]][0]], "SYNC", "the loser's own mirror")
            chain.after(10)
            api.resync(*sets[won[0]])
        chain.stop()
        assert all(winners), winners
        array.check_log()


def databases(build, splits):
    with mirrored(Array(build), 2) as array:
        api, dice = Api(array), random.Random(3)
        database = Database(array, "v0", "v1", seed=splits)
        database.start()
        behind = 0
        with hog(array, 2):
            for _ in range(splits):
                database.after(dice.randrange(1, 60))
                least = database.acknowledged
                api.split("m0", "m1", max_hold_ms=HOLD_LIMIT_MS)
                most = database.begun
                database.after(3)
                behind += recover(array, "s0", "s1", database, least, most)
                api.resync("m0", "m1")
        database.stop()
        assert behind, "the data never lagged behind the log: nothing was recovered"
        array.check_log()


def test_item_19_a_database_over_two_volumes_recovers_after_every_split(build):
    """Item 19: a log on one volume, data on another; after each of ten splits a second database is
    started on the targets, recovers, has every transaction committed before the command, and the
    sum of its accounts is right.

    Mutations: as in item 2; and test_a_database_whose_volumes_are_cut_apart_does_not_recover.
    """
    databases(build, 10)


@slow
def test_item_19_a_hundred_recoveries(build):
    databases(build, 100)


def test_a_database_whose_volumes_are_cut_apart_does_not_recover(build):
    """The checker of item 19: two splits, one volume each, with commits between them."""
    with mirrored(Array(build), 2) as array:
        database = Database(array, "v0", "v1", seed=1, checkpoint_every=10_000)
        database.start()
        database.after(20)
        array.do("split", "m0")
        least = database.acknowledged
        database.after(20)
        array.do("split", "m1")
        most = database.begun
        database.stop()
        assert "ahead of the log" in refused_by_a_judge(recover, array, "s0", "s1", database, least,
                                                        most)
        array.do("mirror", "resync", "all", "--wait")
        array.do("split", "all")
        assert recover(array, "s0", "s1", database, database.acknowledged, database.begun) is not None
        assert "acknowledged" in refused_by_a_judge(
            recover, array, "s0", "s1", database, database.acknowledged + 1, database.begun + 1)
