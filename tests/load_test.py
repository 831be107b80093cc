"""Measures a deployed service against its targets: `./build.sh smoke --load`, or this script.

Reads LOCAL_BATCH_URL and RUNPOD_API_KEY, and MISTRAL_BASE_URL and LLAMA_BASE_URL for single calls. The targets stand in
tests/test_config.yaml. It is no unit test: pytest does not collect it.
"""

import sys
from pathlib import Path

# Run by its path, a script finds its own folder and not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.smoke.command import run_command
from tests.smoke.load import measure

if __name__ == "__main__":
    raise SystemExit(run_command(sys.argv[1:], only=measure))
