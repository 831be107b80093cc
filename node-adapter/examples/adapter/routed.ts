// The app's four functions over both services, by lead: USE_LOCAL_LLM and LOCAL_LLM_PERCENT say which leads go where.
import { BatchRouter, Comparison, formatComparison } from 'llm-batch-adapter';
import * as former from './llmAdapter.js';

export type { BatchRequest } from 'llm-batch-adapter';

const comparison = new Comparison();
const router = new BatchRouter({ remote: former, comparison });

export const createBatch = router.createBatch.bind(router);
export const getBatchStatus = router.getBatchStatus.bind(router);
export const getBatchResults = router.getBatchResults.bind(router);
export const waitForBatch = router.waitForBatch.bind(router);

process.once('beforeExit', async () => {
  await router.settled();
  console.error(formatComparison(comparison.report()));
});
