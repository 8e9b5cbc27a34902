"""The job as an entry point for ``ray job submit --working-dir jobs -- python segment.py --config job.yaml``.

Takes what ``segbatch run`` takes. segbatch itself must be installed on the cluster. The exit code is that of
``segbatch run``; ``ray job submit`` turns every code but 0 into 1 and keeps the real one as ``driver_exit_code``.
"""

import sys

from segbatch.cli.app import main

if __name__ == "__main__":
    sys.argv[1:1] = ["run"]
    main()
