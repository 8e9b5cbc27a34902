"""Run ``segbatch run`` by ``ray job submit --working-dir jobs -- python segment.py --config job.yaml``.

The arguments are those of ``segbatch run``. segbatch must be installed on the cluster. The exit code is that of
``segbatch run``; ``ray job submit`` returns 1 for every code except 0 and records the code as ``driver_exit_code``.
"""

import sys

from segbatch.cli.app import main

if __name__ == "__main__":
    sys.argv[1:1] = ["run"]
    main()
