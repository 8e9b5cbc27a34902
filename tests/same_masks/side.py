"""``python side.py ROOT CASES OUTPUT``: the cases of a JSON file, by the segbatch of one checkout.

Uses nothing of that checkout but ``segbatch.run`` and ``segbatch.JobSpec``, and nothing of the tests: all else may be
elsewhere in the other checkout. One Ray for all cases. Writes OUTPUT/CASE, and an error of a case to OUTPUT/CASE.error.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import ray

import segbatch


def main(root: str, cases: str, output: str) -> None:
    if not Path(segbatch.__file__).resolve().is_relative_to(Path(root).resolve()):
        sys.exit(f"segbatch is imported from {segbatch.__file__}, not from {root}")
    # "local", or ray.init would join a cluster that happens to run on this machine.
    ray.init(
        address="local", num_cpus=2, num_gpus=0, object_store_memory=2**29, include_dashboard=False, log_to_driver=False
    )
    for name, fields in json.loads(Path(cases).read_text()).items():
        begun = time.monotonic()
        try:
            segbatch.run(segbatch.JobSpec(output=str(Path(output) / name), **fields))
            said = ""
        except Exception as e:  # of the case; the comparison tells of it
            said = f"{type(e).__name__}: {e}"
            (Path(output) / f"{name}.error").write_text(said)
        print(f"  {name} {time.monotonic() - begun:.1f} s {said[:200]}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
