#!/usr/bin/python3
"""Runs the integration tests: every function test_* of tests/integration/test_*.py and tests/crash.

  run.py --build DIR [--only PATTERN] [--quick] [--jobs N] [--list]

A test takes a Build and fails by raising. Its first line of docstring, or its name, says what holds.
Marks (decorators of marks.py): slow (left out with --quick), variants (run once per engine and
number of reactors). Last line: "counts PASSED FAILED SKIPPED".
"""
import argparse
import concurrent.futures
import importlib
import inspect
import os
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
for folder in ("lib", "integration", "crash"):
    sys.path.insert(0, os.path.join(HERE, "..", folder))

import duplex  # noqa: E402  pylint: disable=wrong-import-position


def tests_of(only, quick):
    found = []
    for folder in (HERE, os.path.join(HERE, "..", "crash")):
        for file in sorted(os.listdir(folder)):
            if not (file.startswith("test_") and file.endswith(".py")):
                continue
            module = importlib.import_module(file[:-3])
            for name, function in vars(module).items():
                if not name.startswith("test_") or not inspect.isfunction(function):
                    continue
                if quick and getattr(function, "slow", False):
                    continue
                for variant in getattr(function, "variants", [{}]):
                    title = f"{file[5:-3]}.{name[5:]}" + "".join(
                        f"[{key}={value}]" for key, value in variant.items())
                    if only in title:
                        found.append((title, module.__name__, name, variant))
    return found


def run_one(build, module, name, variant):
    """In a process of its own: outcome, text, seconds."""
    start = time.monotonic()
    try:
        getattr(importlib.import_module(module), name)(duplex.Build(build), **variant)
        outcome, text = "ok", ""
    except duplex.Skip as skip:
        outcome, text = "skip", str(skip)
    except BaseException:  # pylint: disable=broad-except
        outcome, text = "FAILED", traceback.format_exc()
    return outcome, text, time.monotonic() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    tests = tests_of(options.only, options.quick)
    if options.list:
        print("\n".join(title for title, *_ in tests))
        return 0
    counts = {"ok": 0, "FAILED": 0, "skip": 0}
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        running = {pool.submit(run_one, options.build, *rest): title for title, *rest in tests}
        for future in concurrent.futures.as_completed(running):
            outcome, text, seconds = future.result()
            counts[outcome] += 1
            if outcome == "skip":
                print(f"skip {running[future]}: {text}", flush=True)
            else:
                print(f"{outcome:6} {running[future]}  {seconds:.1f} s", flush=True)
                if text:
                    print(text, flush=True)
    print(f"counts {counts['ok']} {counts['FAILED']} {counts['skip']}")
    return 1 if counts["FAILED"] or not tests else 0


if __name__ == "__main__":
    sys.exit(main())
