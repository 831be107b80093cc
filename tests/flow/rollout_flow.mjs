// One batch of 60 leads over two sides, both of them this service, with copies; prints what it saw as one line of JSON.
import { BatchRouter, Comparison, formatComparison, route } from '../../node-adapter/dist/esm/index.js';
import * as adapter from '../../node-adapter/dist/esm/llmAdapter.js';

const leads = Array.from({ length: 60 }, (_, n) => `L${n}`);
const requests = leads.map((leadId) => ({
  custom_id: `ключ 🦔 ${leadId}`,
  params: { messages: [{ role: 'user', content: `Write to ${leadId}.` }], max_tokens: 8 },
  metadata: { leadId },
}));
const prices = {
  workerUsdPerSecond: { mistral: 0.00031 },
  managedUsdPerMillionTokens: { mistral: { input: 1, output: 5 } },
};
const comparison = new Comparison({ prices, samples: 2 });
const router = new BatchRouter({ remote: adapter, localPercent: 50, shadowPercent: 20, comparison });

const { id } = await router.createBatch('email', requests, { idempotencyKey: 'rollout-flow' });
const status = await router.waitForBatch(id, 60_000, { pollIntervalMs: 200 });
const { results } = await router.getBatchResults(id);
let left = await router.compareShadows();
for (; left > 0; left = await router.compareShadows())
  await new Promise((resolve) => setTimeout(resolve, 200));
const again = await router.createBatch('email', requests, { idempotencyKey: 'other' });
const canceled = await router.cancelBatch(again.id).catch((error) => error.message);

console.log(
  JSON.stringify({
    id,
    status,
    order: results.map((result) => result.custom_id),
    statuses: results.map((result) => result.status),
    asked: requests.map((request) => request.custom_id),
    here: leads.filter((key) => route({ localPercent: 50, key }) === 'local').length,
    report: comparison.report(),
    table: formatComparison(comparison.report()),
    canceled,
  }),
);
