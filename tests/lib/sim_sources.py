#!/usr/bin/env python3
"""Every source of the array runs in the simulator: no source of src/ may be missing from what
sim_run was linked of.

    tests/lib/sim_sources.py build

A source that is in an archive but not linked counts as missing: the linker's maps say what was
taken. Those who may be missing stand below, each with the reason. Ends with status 1 and the names
when others are missing, or when one that may be missing is not.
"""
import pathlib
import re
import sys

EXCEPT = {
    "mirror/job_state.cc": "a table the copier is compared with in unit_copy",
    "mirror/states_doc.cc": "prints docs/REFERENCE.md",
    "os/": "the doors on Linux; the simulator has its own",
    "api/": "HTTP and JSON around calls of control/; unit_control runs it on simulated machines",
}


def linked(link_map: pathlib.Path) -> set[str]:
    """Sources of src/ whose objects a program was linked of."""
    found = re.findall(r"libduplex_(\w+)\.a\(([\w.]+\.cc)\.o\)", link_map.read_text())
    return {f"{room}/{source}" for room, source in found}


def main() -> int:
    build = pathlib.Path(sys.argv[1])
    root = pathlib.Path(__file__).resolve().parents[2] / "src"
    sources = {
        str(path.relative_to(root))
        for path in root.rglob("*.cc")
        if not re.search(r"_(test|fuzz|bench)\.cc$", path.name)
    }
    simulated = linked(build / "sim_run.map")
    wrong = []
    for source in sorted(sources):
        if any(source.startswith(prefix) for prefix in EXCEPT):
            if source in simulated:
                wrong.append(f"src/{source} is in sim_run, against the list here")
        elif source not in simulated:
            wrong.append(f"src/{source} is not in sim_run: no random run ever executes it")
    for line in wrong:
        print(line)
    print(f"{len(sources & simulated)} of {len(sources)} sources run in sim_run")
    return 1 if wrong or not simulated else 0


if __name__ == "__main__":
    sys.exit(main())
