"""Checks a deployed service: `./build.sh smoke`, or this script. tests/test_config.yaml says what it expects.

Reads LOCAL_BATCH_URL and RUNPOD_API_KEY. It is no unit test: pytest does not collect it.
"""

import sys
from pathlib import Path

# Run by its path, a script finds its own folder and not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.smoke.command import run_command

if __name__ == "__main__":
    raise SystemExit(run_command(sys.argv[1:]))
