"""Real clients: nbdinfo, nbdcopy, qemu-img, qemu-io, fio, file systems over nbdfuse."""
import hashlib
import json
import os
import subprocess
import time

from duplex import KIB, MIB, Array, Refused, Skip, connect, needs, sh
from marks import every_engine, slow


def sha(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def random_file(path, size, holes=True):
    """A file with data, zeroes and holes."""
    with open(path, "wb") as file:
        file.truncate(size)
        for at in range(0, size, 8 * MIB):
            file.seek(at)
            file.write(os.urandom(3 * MIB + 4567) if holes else os.urandom(min(8 * MIB, size - at)))
        file.truncate(size)


def test_nbdinfo_lists_and_describes_exports(build):
    needs("nbdinfo")
    with Array(build) as array:
        array.with_volume("one", "64M")
        array.do("volume", "create", "two", "--size", "1M")
        found = json.loads(sh("nbdinfo", "--json", "--list",
                              f"nbd+unix:///?socket={array.nbd}").stdout)
        assert {e["export-name"]: e["export-size"] for e in found["exports"]} == {
            "one": 64 * MIB, "two": MIB}, found
        export = json.loads(sh("nbdinfo", "--json", array.uri("one")).stdout)["exports"][0]
        for can in ("can_flush", "can_fua", "can_trim", "can_zero", "can_fast_zero", "can_df",
                    "can_cache", "can_multi_conn"):
            assert export[can] is True, (can, export)
        assert export["is_read_only"] is False
        assert "base:allocation" in export["contexts"], export


@every_engine
def test_nbdcopy_there_and_back_is_the_same(build, **how):
    needs("nbdcopy")
    with Array(build, **how) as array:
        array.with_volume("vol", "256M", device_size="1G")
        source, back = array.path("in"), array.path("out")
        random_file(source, 64 * MIB)
        sh("nbdcopy", source, array.uri("vol"))
        sh("nbdcopy", "--connections=4", "--requests=64", array.uri("vol"), back)
        os.truncate(back, 64 * MIB)
        assert sha(source) == sha(back)
        array.check_log()


def test_base_allocation_follows_what_is_allocated(build):
    with Array(build) as array:
        array.with_volume()
        handle = connect(array)
        handle.pwrite(b"\1" * 512, 8 * MIB)
        parts = json.loads(sh("nbdinfo", "--map", "--json", array.uri("vol")).stdout)
        data = [(p["offset"], p["length"]) for p in parts if p["type"] == 0]
        assert data == [(8 * MIB, 4 * MIB)], parts


def test_qemu_img_converts_compares_and_maps(build):
    needs("qemu-img")
    with Array(build) as array:
        array.with_volume("vol", "64M")
        source, back = array.path("in"), array.path("back.qcow2")
        random_file(source, 64 * MIB)
        sh("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, array.uri("vol"))
        sh("qemu-img", "compare", "-f", "raw", "-F", "raw", source, array.uri("vol"))
        sh("qemu-img", "convert", "-f", "raw", "-O", "qcow2", array.uri("vol"), back)
        sh("qemu-img", "compare", "-f", "raw", "-F", "qcow2", source, back)
        assert json.loads(sh("qemu-img", "map", "--output=json", "-f", "raw",
                             array.uri("vol")).stdout)


def test_qemu_io_verifies_patterns(build):
    needs("qemu-io")
    with Array(build) as array:
        array.with_volume("vol", "64M")
        commands = ["write -P 0x5a 1M 3M", "write -z 2M 512k", "discard 8M 8M", "flush",
                    "write -P 0x11 -f 777 333", "read -P 0x5a 1M 1M", "read -P 0 2M 512k",
                    "read -P 0x11 777 333", "read -P 0 8M 8M", "read -P 0x5a 2560k 1536k"]
        out = sh("qemu-io", "-f", "raw", *[w for c in commands for w in ("-c", c)],
                 array.uri("vol")).stdout
        assert "verification failed" not in out and "error" not in out.lower(), out


@every_engine
def test_fio_verifies_random_writes(build, **how):
    needs("fio")
    with Array(build, **how) as array:
        array.with_volume("vol", "128M", device_size="256M")
        job = array.path("verify.fio")
        with open(job, "w", encoding="utf-8") as file:
            file.write(f"[global]\nioengine=nbd\nuri={array.uri('vol')}\nsize=96M\n"
                       "verify=crc32c\nverify_fatal=1\niodepth=32\n"
                       "[mixed]\nrw=randwrite\nbsrange=512-256k\nblockalign=512\n"
                       "verify_backlog=512\nrandseed=7\n")
        done = sh("fio", "--output-format=json", job, check=False, cwd=array.root)
        if "nbd: engine" in done.stderr or "not loadable" in done.stderr:
            raise Skip("fio has no nbd engine")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        array.check_log()


class Mount:
    """A volume as a mounted file system: nbdfuse, loop, mount."""

    def __init__(self, array, volume, kind):
        self.array, self.volume, self.kind = array, volume, kind
        self.fuse, self.folder = array.path("fuse-" + volume), array.path("mnt-" + volume)
        self.loop = self.process = None

    def __enter__(self):
        if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
            raise Skip("root and /dev/fuse for nbdfuse")
        needs("nbdfuse", "losetup", "mkfs." + self.kind)
        os.makedirs(self.fuse)
        os.makedirs(self.folder)
        self.process = subprocess.Popen(["nbdfuse", self.fuse, self.array.uri(self.volume)],
                                        stdin=subprocess.DEVNULL)
        file = os.path.join(self.fuse, "nbd")
        for _ in range(200):
            if os.path.exists(file) or self.process.poll() is not None:
                break
            time.sleep(0.05)
        if not os.path.exists(file):
            self.process.wait()
            raise Skip("nbdfuse cannot mount here")
        done = sh("losetup", "--find", "--show", file, check=False)
        if done.returncode != 0:
            self.__exit__()
            raise Skip("loop devices: " + done.stderr.strip())
        self.loop = done.stdout.strip()
        return self

    def make(self):
        sh("mkfs." + self.kind, "-q", self.loop)

    def mount(self):
        sh("mount", self.loop, self.folder)

    def unmount(self):
        sh("umount", self.folder)

    def __exit__(self, *_):
        subprocess.run(["umount", self.folder], stderr=subprocess.DEVNULL, check=False)
        if self.loop:
            subprocess.run(["losetup", "-d", self.loop], check=False)
        for _ in range(100):
            if subprocess.run(["fusermount3", "-u", self.fuse], stderr=subprocess.DEVNULL,
                              check=False).returncode == 0 or self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.process.terminate()
        self.process.wait(timeout=30)


def file_system_holds(array, kind, check):
    with Mount(array, "vol", kind) as mount:
        mount.make()
        mount.mount()
        sums = {}
        for number in range(40):
            path = os.path.join(mount.folder, f"file{number}")
            random_file(path, (number + 1) * 37 * KIB, holes=False)
            sums[path] = sha(path)
        for number in range(0, 40, 3):
            path = os.path.join(mount.folder, f"file{number}")
            os.unlink(path)
            del sums[path]
        mount.unmount()
        sh(*check, mount.loop)
        mount.mount()
        assert {path: sha(path) for path in sums} == sums
        sh("fstrim", mount.folder, check=False)
        mount.unmount()
        sh(*check, mount.loop)
    array.check_log()


@slow
def test_ext4_over_nbdfuse_is_clean(build):
    with Array(build) as array:
        array.with_volume("vol", "128M", device_size="256M")
        file_system_holds(array, "ext4", ("fsck.ext4", "-fn"))


@slow
def test_xfs_over_nbdfuse_is_clean(build):
    with Array(build) as array:
        array.with_volume("vol", "384M", device_size="512M")
        file_system_holds(array, "xfs", ("xfs_repair", "-n"))


def test_two_clients_on_one_volume_see_each_other(build):
    with Array(build, reactors=4) as array:
        array.with_volume()
        one, two = connect(array), connect(array)
        for number in range(200):
            one.pwrite(bytes([number % 256]) * 3000, number * 1000)
            got = two.pread(3000, number * 1000)
            if got != bytes([number % 256]) * 3000:
                raise Refused(f"write {number} is not seen by the other connection")
        two.flush()
