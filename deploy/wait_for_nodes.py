"""Wait until all nodes of a cluster are alive, to detect missing nodes before a job starts.

``python wait_for_nodes.py --nodes 6`` exits with 0 once six nodes are alive, including the head, and with 1 after
``--timeout`` seconds (1800). It prints the number of nodes; start the job with fewer nodes, or wait for spot capacity.
"""

import argparse
import os
import sys
import time

import ray


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, required=True, help="total number of nodes, including the head")
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
