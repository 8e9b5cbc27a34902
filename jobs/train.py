"""Run ``segbatch train`` by ``ray job submit --working-dir jobs -- python train.py --config train.yaml``.

The arguments are those of ``segbatch train``; ``--workers`` processes split each batch. segbatch must be installed on
the cluster, and every worker must be able to write to the output.
"""

import sys

from segbatch.cli.app import main

if __name__ == "__main__":
    sys.argv[1:1] = ["train"]
    main()
