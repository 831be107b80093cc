// An app on the official TypeScript SDK that does what it is told: `{"do": operation, ...}` a line, a line of JSON back.
// Arguments: the package of the SDK. The batch endpoint and its key come from the environment.
import { createInterface } from 'node:readline';
import { runpodFetch } from 'llm-batch-adapter/runpodFetch';

const { Anthropic, AnthropicError, APIConnectionError } = await import(process.argv[2]);

function clientWith(options) {
  const { LOCAL_BATCH_URL: batchUrl, RUNPOD_API_KEY: apiKey } = process.env;
  return new Anthropic({ apiKey: 'unused', fetch: runpodFetch({ batchUrl, apiKey, ...options }) });
}

// Carries calls to RunPod; the first answer gets lost on the way.
function cutOnce() {
  let left = 1;
  return async (url, init) => {
    const response = await fetch(url, init);
    await response.clone().text();
    if (left === 0) return response;
    left -= 1;
    throw new TypeError('cut');
  };
}

async function all(stream) {
  const items = [];
  for await (const item of await stream) items.push(item);
  return items;
}

const client = clientWith();
const { batches } = client.messages;

const operations = {
  create: ({ requests, headers }) => batches.create({ requests }, { headers }),
  create_cut: ({ requests }) =>
    clientWith({ maxRetries: 0, fetch: cutOnce() }).messages.batches.create({ requests }),
  retrieve: ({ id }) => batches.retrieve(id),
  request_id: async ({ id }) => (await batches.retrieve(id))._request_id,
  retrieve_with_key: ({ id, api_key: apiKey }) => clientWith({ apiKey }).messages.batches.retrieve(id),
  list_ids: async ({ limit, count }) => {
    const ids = [];
    for await (const { id } of batches.list({ limit })) if (ids.push(id) === count) break;
    return ids;
  },
  list_page: async (query) => {
    const { data, has_more, first_id, last_id } = await batches.list(query);
    return { data, has_more, first_id, last_id };
  },
  cancel: ({ id }) => batches.cancel(id),
  delete: ({ id }) => batches.delete(id),
  results: ({ id }) => all(batches.results(id)),
  first_result: async ({ id }) => {
    for await (const line of await batches.results(id)) return line;
  },
  message: (params) => client.messages.create(params),
  models: async () => (await all(client.models.list())).map(({ id }) => id),
};

// What an app sees of an error.
function failureOf(error) {
  return {
    class: error.constructor.name,
    status: error.status ?? null,
    type: error.error?.error?.type ?? null,
    message: error.message,
    request_id: error.requestID ?? null,
    connection: error instanceof APIConnectionError,
  };
}

async function answerTo({ do: operation, ...given }) {
  try {
    return { gave: await operations[operation](given) };
  } catch (error) {
    if (!(error instanceof AnthropicError)) throw error;
    return { threw: failureOf(error) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answerTo(JSON.parse(line))));
}
