"""Wait until the cluster has its nodes, to learn that they do not come before a job waits for them.

``python wait_for_nodes.py --nodes 6`` ends with 0 once six nodes are alive, the head among them, and with 1 after
``--timeout`` seconds (1800), saying how many there are: start the job then all the same, or ask the spot market later.
"""

import argparse
import os
import sys
import time

import ray


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, required=True, help="nodes in all, the head among them")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds")
    parser.add_argument("--address", default=os.environ.get("RAY_ADDRESS", "auto"))
    wanted = parser.parse_args()
    ray.init(address=wanted.address, log_to_driver=False)
    end = time.monotonic() + wanted.timeout
    while True:
        alive = [n["Resources"] for n in ray.nodes() if n["Alive"]]
        held = ", ".join(f"{sum(r.get(kind, 0) for r in alive):g} {kind}s" for kind in ("CPU", "GPU"))
        print(f"{len(alive)} of {wanted.nodes} nodes: {held}", flush=True)
        if len(alive) >= wanted.nodes:
            return 0
        if time.monotonic() > end:
            return 1
        time.sleep(min(10.0, max(0.1, end - time.monotonic())))


if __name__ == "__main__":
    sys.exit(main())
