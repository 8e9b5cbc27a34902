"""Training as an entry point for ``ray job submit --working-dir jobs -- python train.py --config train.yaml``.

Takes what ``segbatch train`` takes; ``--workers`` share the batches. segbatch itself must be installed on the cluster,
and the output must be where every worker can write.
"""

import sys

from segbatch.cli.app import main

if __name__ == "__main__":
    sys.argv[1:1] = ["train"]
    main()
