// One batch through the built Node adapter, as an app would do it; prints what it saw as one line of JSON.
// Arguments: the requests as JSON.
import assert from 'node:assert/strict';
import {
  createBatch,
  deleteBatch,
  getBatchResults,
  getBatchStatus,
  isBatchNotEndedError,
  isConflictError,
  isInvalidRequestError,
  isNotFoundError,
  listBatches,
  retryFailed,
  streamBatchResults,
  waitForBatch,
} from '../../node-adapter/dist/esm/index.js';

const requests = JSON.parse(process.argv[2]);

// Gives what a call threw, as the app sees it.
async function failureOf(call, guard) {
  const error = await call().then(
    () => assert.fail('it should have failed'),
    (thrown) => thrown,
  );
  assert.ok(error instanceof Error);
  assert.ok(guard(error), `not the typed error: ${error}`);
  return { message: error.message, status: error.status, type: error.type, param: error.param };
}

function failing(request) {
  const { messages, ...params } = request.params;
  return { ...request, params: { ...params, messages: [{ role: 'user', content: '[[error]]' }] } };
}

const options = { idempotencyKey: 'adapter-flow' };
const { id } = await createBatch('email', requests, options);
const early = await failureOf(() => getBatchResults(id), isBatchNotEndedError);
const status = await waitForBatch(id, 60_000);
assert.deepEqual(await getBatchStatus(id), status);
const { results } = await getBatchResults(id);
const streamed = [];
for await (const result of streamBatchResults(id)) streamed.push(result);
assert.deepEqual(streamed, results);
const again = await createBatch('email', requests, options);
const listed = (await listBatches({ limit: 1000 })).batches.map((batch) => batch.id);
const conflict = await failureOf(() => createBatch('subject', requests, options), isConflictError);
const invalid = await failureOf(
  () => createBatch('email', [{ custom_id: '', params: requests[0].params }]),
  isInvalidRequestError,
);
const nothingFailed = await failureOf(() => retryFailed(id), isInvalidRequestError);

// Half of a batch fails each time: its retry holds that half.
const marked = requests.map((request, n) => (n % 2 ? request : failing(request)));
const first = await createBatch('email', marked, { expiresInS: 3600 });
const firstStatus = await waitForBatch(first.id, 60_000);
const retry = await retryFailed(first.id);
assert.deepEqual(await retryFailed(first.id), retry);
const retryStatus = await waitForBatch(retry.id, 60_000);
const retried = { firstStatus, status: retryStatus, ...(await getBatchResults(retry.id)) };

const deleted = await deleteBatch(id);
const gone = await failureOf(() => getBatchStatus(id), isNotFoundError);
const failures = { early, conflict, invalid, nothingFailed, gone };
console.log(JSON.stringify({ id, status, results, again, listed, retried, deleted, ...failures }));
