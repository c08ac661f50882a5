#!/usr/bin/env bash
# clang-tidy over every source of src and apps, by the rules of .clang-tidy. Needs a built build/.
# A file that was clean is remembered in build/tidy-cache/ and looked at again when it, a header
# of ours below it, its flags or the rules change. Last line: counts CLEAN FINDINGS 0.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec /usr/bin/python3 tests/lib/tidy.py
