"""A batch as the SDK's pages teach it for asyncio: create, poll until it has ended, read each kind of result."""

import asyncio

import anthropic

client = anthropic.AsyncAnthropic()


async def main() -> None:
    batch = await client.messages.batches.create(
        requests=[
            {
                "custom_id": custom_id,
                "params": {
                    "model": "claude-opus-4-8",
                    "max_tokens": 1024,
                    "messages": [{"role": "user", "content": text}],
                },
            }
            for custom_id, text in (
                ("my-first-request", "Hello, world"),
                ("my-second-request", "Hi again, friend"),
            )
        ]
    )
    print(f"Batch {batch.id} is {batch.type}")
    while batch.processing_status != "ended":
        await asyncio.sleep(60)
        batch = await client.messages.batches.retrieve(batch.id)
    print(f"{batch.request_counts.succeeded} succeeded")
    async for entry in await client.messages.batches.results(batch.id):
        if entry.result.type == "succeeded":
            print(f"Success! {entry.custom_id}")
    async for batch in client.messages.batches.list(limit=20):
        print(f"Listed {batch.type}")
        break


asyncio.run(main())
