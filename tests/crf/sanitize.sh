#!/usr/bin/env bash
# The native engine under AddressSanitizer and UndefinedBehaviorSanitizer: builds a copy into a scratch folder, runs the
# native tests against it. Takes the interpreter to use; needs cmake, g++, nanobind and NumPy. Options go to pytest.
set -euo pipefail

python=$(realpath -s "${1:-python3}")
shift || true
root=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" -m pip install --quiet --disable-pip-version-check --target "$scratch/build-tools" nanobind
export PYTHONPATH="$scratch/build-tools"
cmake -S "$root/segbatch/crf/_native" -B "$scratch/build" -DSEGBATCH_SANITIZE=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DPython_EXECUTABLE="$python" > "$scratch/cmake.log" || { cat "$scratch/cmake.log"; exit 1; }
cmake --build "$scratch/build" --target _core --parallel > "$scratch/build.log" || { cat "$scratch/build.log"; exit 1; }

# The package as it is, with the other extension; the tests as they are.
mkdir "$scratch/run"
cp -r "$root/segbatch" "$root/tests" "$root/pyproject.toml" "$scratch/run/"
cp "$scratch"/build/_core*.so "$scratch/run/segbatch/crf/"
cat > "$scratch/run/conftest.py" <<'PY'
import sys

# An editable install would answer for the package before this folder does.
sys.meta_path[:] = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
sys.path.insert(0, str(__import__("pathlib").Path(__file__).parent))
from segbatch.crf import _core

assert _core.__file__.startswith(sys.path[0]), _core.__file__
PY

cd "$scratch/run"
unset PYTHONPATH
export OMP_NUM_THREADS=1 PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so) $(g++ -print-file-name=libstdc++.so)" \
  "$python" -m pytest -q -p no:cacheprovider tests/crf/test_native_engine.py tests/crf/test_dense_crf.py \
  tests/crf/test_compat.py tests/crf/test_random.py tests/refiners/test_probability.py -k "not torch" "$@"
