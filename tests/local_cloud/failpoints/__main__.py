"""`python -u -m tests.local_cloud.failpoints MODULE`: a handler's module as it is, with failpoints around it."""

import os
import runpy
import sys
from pathlib import Path

from tests.local_cloud.failpoints.armed import Armed
from tests.local_cloud.failpoints.command import FOLDER
from tests.local_cloud.failpoints.moments import BATCH_WORKER, MODEL_WORKER
from tests.local_cloud.failpoints.striking import install


def main() -> None:
    worker = BATCH_WORKER if os.environ["RUNPOD_ENDPOINT_ID"] == "batch-api" else MODEL_WORKER
    install(worker, Armed(Path(os.environ[FOLDER])).fires)
    # The handler sees the command line that it has without failpoints.
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
