"""The NBD servers that bench/ compares: each starts on a file of its own and is asked for its CPU time.

A file of its own for each, because servers that go through the page cache and servers that go past it
disturb each other on one file. Every server here ends by process id when its `with` block ends.
"""
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "lib"))
from duplex import Array, Build  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
START_LIMIT_S = 20
# What a device file needs besides its volumes: label, map logs and the last extent.
DEVICE_EXTRA_BYTES = 256 << 20
VOLUME = "vol"


def pin(cpus):
    """The words that keep a command on these processors; None lets it run anywhere."""
    return ["taskset", "-c", cpus] if cpus else []


def _stat(pid):
    """(parent, ticks of all its threads and of the children it has waited for); None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), sum(int(ticks) for ticks in fields[11:15])


def cpu_seconds(pid):
    """CPU time of a process with its threads and its children, living or reaped."""
    stats = {int(name): _stat(name) for name in os.listdir("/proc") if name.isdigit()}
    family, ticks = [pid], 0
    for member in family:
        if stats.get(member):
            ticks += stats[member][1]
        family += [child for child, stat in stats.items() if stat and stat[0] == member]
    return ticks / TICKS


class Server:
    """A server of one file. Subclasses say how it is started."""

    label = ""
    program = ""
    export = ""

    def __init__(self, folder, size_bytes, cpus):
        self.folder = os.path.join(folder, self.label)
        os.mkdir(self.folder)
        self.size_bytes, self.cpus = size_bytes, cpus
        self.file = os.path.join(self.folder, "disk")
        self.socket = os.path.join(self.folder, "nbd.sock")
        self.uri = f"nbd+unix:///{self.export}?socket={self.socket}"
        self._process = None
        self.pid = 0

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _start(self):
        with open(self.file, "wb") as file:
            file.truncate(self.size_bytes)
        with open(os.path.join(self.folder, "log"), "wb") as log:
            self._process = subprocess.Popen(pin(self.cpus) + self.command(), stdin=subprocess.DEVNULL,
                                             stdout=log, stderr=log)
        self._wait_until_it_serves()

    def _wait_until_it_serves(self):
        self.pid = self._process.pid
        end = time.monotonic() + START_LIMIT_S
        while not os.path.exists(self.socket):
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"{self.label} does not start, see {self.folder}/log")
            time.sleep(0.02)

    def stop(self):
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=START_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def command(self):
        raise NotImplementedError

    def empty(self):
        """Takes all blocks away from the file, so that the next write of each place is its first."""
        subprocess.run(["fallocate", "--punch-hole", "--offset", "0", "--length", str(self.size_bytes),
                        self.file], check=True)

    def cpu(self):
        return cpu_seconds(self.pid)


class Nbdkit(Server):
    label, program = "nbdkit", "nbdkit"

    def command(self):
        return [self.program, "-f", "-U", self.socket, "file", self.file]


class Qsd(Server):
    label, program, export = "qsd", "qemu-storage-daemon", "x"

    def command(self):
        return [self.program,
                "--blockdev", f"driver=file,node-name=f,filename={self.file},aio=io_uring,"
                              "cache.direct=on,locking=off,discard=unmap",
                "--nbd-server", f"addr.type=unix,addr.path={self.socket},max-connections=16",
                "--export", f"type=nbd,id=e,node-name=f,name={self.export},writable=on"]


class NbdServer(Server):
    """Leaves its parent when it starts and says in a file which process it is then."""

    label, program, export = "nbd-server", "nbd-server", "x"

    def command(self):
        config = os.path.join(self.folder, "config")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"[generic]\n unixsock = {self.socket}\n allowlist = true\n"
                       f"[{self.export}]\n exportname = {self.file}\n flush = true\n fua = true\n")
        return [self.program, "-C", config, "-p", os.path.join(self.folder, "pid")]

    def _wait_until_it_serves(self):
        self._process.wait(timeout=START_LIMIT_S)
        self._process = None
        end = time.monotonic() + START_LIMIT_S
        while not (os.path.exists(self.socket) and self._read_pid()):
            if time.monotonic() > end:
                raise RuntimeError(f"{self.label} does not start, see {self.folder}/log")
            time.sleep(0.02)

    def _read_pid(self):
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(self.folder, "pid"), encoding="ascii") as file:
                self.pid = int(file.read())
        return self.pid

    def stop(self):
        super().stop()
        if not self.pid:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        end = time.monotonic() + START_LIMIT_S
        while os.path.exists(f"/proc/{self.pid}") and time.monotonic() < end:
            time.sleep(0.02)
        self.pid = 0


class Duplexd(Server):
    """An array with one device file and one thin volume on it."""

    label, program, export = "duplexd", "duplexd", VOLUME
    build = ""
    _array = None

    def _start(self):
        reactors = len(self.cpus.split(",")) if self.cpus else os.cpu_count()
        self._array = Array(Build(self.build), reactors=reactors, root=self.folder)
        with pinned(self.cpus):
            self._array.start()
        self.pid = self._array.process.pid
        self._array.do("device", "add", self.file, "--size", self.size_bytes + DEVICE_EXTRA_BYTES)
        self._create()

    def _create(self):
        self._array.do("volume", "create", VOLUME, "--size", self.size_bytes)

    def stop(self):
        if self._array:
            self._array.kill()

    def empty(self):
        self._array.do("volume", "delete", VOLUME, "--disconnect", "--yes")
        end = time.monotonic() + START_LIMIT_S
        while self._array.do("pool", "show")["scrubbing"]:
            if time.monotonic() > end:
                raise RuntimeError("the extents of a deleted volume are not cleaned")
            time.sleep(0.02)
        self._create()


@contextlib.contextmanager
def pinned(cpus):
    """What is started inside inherits these processors."""
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


PEERS = (Qsd, Nbdkit, NbdServer)


def available(servers):
    """Those whose program is installed; the others are told on stderr."""
    there = [server for server in servers if server is Duplexd or shutil.which(server.program)]
    for server in servers:
        if server not in there:
            print(f"left out, not installed: {server.program}", file=sys.stderr)
    return there
