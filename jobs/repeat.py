"""Repeat a job on the same cluster while a repetition may help: ``python repeat.py nightly.py nightly.yaml``.

After exit code 1 (an outage, a crash) or SIGKILL the script beside this one is started again, at most twice: it resumes
from the committed chunks. Every other exit code is final, see docs/operate.md. KubeRay itself does not look at exit
codes, and would start a new cluster for each attempt.
"""

import subprocess
import sys
import time
from pathlib import Path

WAITS_SECONDS = (60, 600)
REPEATED = (1, -9, 137)


def main() -> int:
    """Return the exit code of the last attempt."""
    script, *arguments = sys.argv[1:]
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    code = subprocess.call(command)
    for wait_seconds in WAITS_SECONDS:
        if code not in REPEATED:
            break
        sys.stderr.write(f"exit code {code}; the same command resumes in {wait_seconds} s\n")
        time.sleep(wait_seconds)
        code = subprocess.call(command)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
