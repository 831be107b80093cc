"""`./build.sh bench`: what the service adds to its engines, measured through the local cloud. Prints lines of JSON.

All figures of a line come from one run on one machine, so read the ratios, not the seconds.
"""

import argparse
import asyncio

from tests.bench import batches, creates, large, scaling, vllm

SECTIONS = {"batches": batches.run, "creates": creates.run, "scaling": scaling.run}
# With a real engine.
VLLM_SECTIONS = {"vllm": vllm.run}


async def main() -> None:
    parser = argparse.ArgumentParser(prog="./build.sh bench", description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"which of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--engine", choices=("simulated", "vllm"), default="simulated")
    parser.add_argument("--repeat", type=int, default=3, help="runs per figure; the median is printed")
    parser.add_argument(
        "--large", action="store_true", help="one batch that goes in parts, instead of sections"
    )
    parser.add_argument("--requests", type=int, default=large.DEFAULT_REQUESTS, help="of the large batch")
    parser.add_argument(
        "--mb", type=int, default=large.DEFAULT_MB, help="of the large batch, in 1,000,000 bytes"
    )
    args = parser.parse_args()
    if args.large:
        await large.run(args.requests, args.mb)
        return
    sections = VLLM_SECTIONS if args.engine == "vllm" else SECTIONS
    for name in args.sections or sections:
        if name not in sections:
            parser.error(f"unknown section {name!r}")
    for name in args.sections or sections:
        await sections[name](args.repeat)


# vLLM starts processes that import this module.
if __name__ == "__main__":
    asyncio.run(main())
