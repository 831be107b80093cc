// A batch as the SDK's pages teach it: create, poll until it has ended, read each kind of result.
import Anthropic from '@anthropic-ai/sdk';

const anthropic = new Anthropic();

let messageBatch = await anthropic.messages.batches.create({
  requests: [
    {
      custom_id: 'my-first-request',
      params: {
        model: 'claude-opus-4-8',
        max_tokens: 1024,
        messages: [{ role: 'user', content: 'Hello, world' }],
      },
    },
    {
      custom_id: 'my-second-request',
      params: {
        model: 'claude-opus-4-8',
        max_tokens: 1024,
        messages: [{ role: 'user', content: 'Hi again, friend' }],
      },
    },
  ],
});
console.log(`Batch ${messageBatch.id} is ${messageBatch.type}`);

while (true) {
  messageBatch = await anthropic.messages.batches.retrieve(messageBatch.id);
  if (messageBatch.processing_status === 'ended') break;
  await new Promise((resolve) => setTimeout(resolve, 60_000));
}
console.log(`${messageBatch.request_counts.succeeded} succeeded`);

for await (const result of await anthropic.messages.batches.results(messageBatch.id)) {
  switch (result.result.type) {
    case 'succeeded':
      console.log(`Success! ${result.custom_id}`);
      break;
    case 'errored':
      if (result.result.error.error.type === 'invalid_request_error') {
        console.log(`Validation error ${result.custom_id}`);
      } else {
        console.log(`Server error ${result.custom_id}`);
      }
      break;
    case 'expired':
      console.log(`Request expired ${result.custom_id}`);
      break;
  }
}

for await (const { type } of anthropic.messages.batches.list({ limit: 20 })) {
  console.log(`Listed ${type}`);
  break;
}
