"""The work of tidy.sh: which files need a look, two at a time, and what was found."""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path.cwd()
BUILD = ROOT / 'build'
CACHE = BUILD / 'tidy-cache'
TIDY = 'clang-tidy-19'
INCLUDE = re.compile(rb'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
FINDING = re.compile(r'^(\S+?):(\d+):(\d+): (warning|error): ')


def sources():
    """Compile command of every source of ours; the fuzzers have a build of their own."""
    found = {}
    for entry in json.loads((BUILD / 'compile_commands.json').read_text()):
        path = pathlib.Path(entry['file'])
        if not path.is_relative_to(ROOT) or path.name.endswith('_fuzz.cc') or not path.exists():
            continue
        if path.relative_to(ROOT).parts[0] in ('src', 'apps'):
            found[path] = entry['command']
    return found


def inputs(path, seen):
    """The file and every header of ours it includes, directly or not."""
    if path in seen:
        return
    seen[path] = text = path.read_bytes()
    for name in INCLUDE.findall(text):
        for folder in (path.parent, ROOT / 'src', ROOT / 'apps'):
            header = folder / os.fsdecode(name)
            if header.is_file():
                inputs(header, seen)
                break


def key(path, command, rules):
    seen = {}
    inputs(path, seen)
    digest = hashlib.sha256(rules + command.encode())
    for name in sorted(seen):
        digest.update(str(name).encode() + b'\0' + seen[name])
    return digest.hexdigest()


def look_at(path):
    run = subprocess.run([TIDY, '-p', str(BUILD), '--quiet', str(path)], stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, check=False)
    return run.returncode, run.stdout, run.stderr


def in_source(line):
    """A finding in a header is reported under the path of its room's view: name the file itself."""
    match = FINDING.match(line)
    if not match:
        return line
    real = os.path.relpath(os.path.realpath(match.group(1)), ROOT)
    return real + line[len(match.group(1)):]


def main():
    if shutil.which(TIDY) is None:
        sys.exit(f'{TIDY} is missing: apt-get install {TIDY}')
    if not (BUILD / 'compile_commands.json').exists():
        sys.exit('build/ is missing: cmake --preset release && ninja -C build')
    version = subprocess.run([TIDY, '--version'], capture_output=True, check=True).stdout
    rules = version + (ROOT / '.clang-tidy').read_bytes() + (ROOT / 'cmake/pch.h').read_bytes()
    commands = sources()
    keys = {path: key(path, command, rules) for path, command in commands.items()}
    CACHE.mkdir(exist_ok=True)
    for known in CACHE.iterdir():
        if known.name not in keys.values():
            known.unlink()
    pending = [path for path in keys if not (CACHE / keys[path]).exists()]
    pending.sort(key=lambda path: path.stat().st_size, reverse=True)
    bad, printed = 0, set()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for path, (code, out, err) in zip(pending, pool.map(look_at, pending)):
            if code == 0:
                (CACHE / keys[path]).touch()
                continue
            bad += 1
            print(f'== {path.relative_to(ROOT)}')
            show(out, err, printed)
    print(f'counts {len(keys) - bad} {bad} 0')
    return 1 if bad else 0


def show(out, err, printed):
    """The findings that were not shown before; a header's come again with each file that sees it."""
    wanted = True
    for line in map(in_source, out.splitlines()):
        if FINDING.match(line):
            wanted = line not in printed
            printed.add(line)
        if wanted:
            print(line)
    if not out:
        print(err.strip())


sys.exit(main())
