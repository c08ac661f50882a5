"""What the scripts of bench/ share: one run of fio, medians over rounds, the machine, tables."""
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time

RUN_LIMIT_S = 60


def fio(cpus, *words):
    """Runs one job of one direction; its rates, latencies in microseconds and the client's CPU use."""
    with tempfile.TemporaryDirectory() as folder:  # fio leaves state files where it runs
        done = subprocess.run(
            [*cpus, "fio", "--output-format=json", "--name=job", "--thread", *words], cwd=folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)
    start = done.stdout.find("{")
    if done.returncode != 0 or start < 0:
        raise RuntimeError(f"fio {' '.join(words)}: exit {done.returncode}: "
                           f"{done.stderr[-500:]}{done.stdout[-500:]}")
    job = json.loads(done.stdout[start:])["jobs"][0]
    side = max(job["read"], job["write"], key=lambda each: each["total_ios"])
    percentiles = side["clat_ns"].get("percentile", {})
    return {"ops": side["total_ios"], "iops": side["iops"], "mbs": side["bw_bytes"] / 1e6,
            "p50_us": percentiles.get("50.000000", 0) / 1e3,
            "p99_us": percentiles.get("99.000000", 0) / 1e3,
            "max_us": side["clat_ns"].get("max", 0) / 1e3,
            "client_percent": job["usr_cpu"] + job["sys_cpu"]}


def median(rounds, key):
    return statistics.median(each[key] for each in rounds)


def spread_percent(rounds, key):
    """The noise of the repeats: how far the best round is from the worst, in parts of the median."""
    values = [each[key] for each in rounds]
    return 100 * (max(values) - min(values)) / max(statistics.median(values), 1e-9)


def table(head, rows):
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _first(path, key):
    try:
        with open(path, encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith(key))
    except (OSError, StopIteration):
        return ""


def _is_virtual():
    return "hypervisor" in _first("/proc/cpuinfo", "flags").split()


def _file_system(folder):
    done = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown file system"


def machine(folders=()):
    """The machine, without names of it: what a reader needs to compare."""
    memory_gib = int(_first("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20)
    kind = "virtual machine" if _is_virtual() else "no virtual machine"
    busy = os.getloadavg()[0]
    places = ", ".join(sorted({_file_system(folder) for folder in folders}))
    return (f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs ({_first('/proc/cpuinfo', 'model name')}), "
            f"{memory_gib:.0f} GiB, {kind}, Linux {platform.release().split('-')[0]}"
            f"{', ' + places if places else ''}; load average at the start {busy:.1f}")
