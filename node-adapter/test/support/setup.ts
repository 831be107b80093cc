// A client on a scripted server with a clock that does not wait.
import type { TestContext } from 'node:test';
import { LlmBatchClient } from '../../src/client.js';
import type { BatchRequest, BatchStatus, ClientOptions } from '../../src/types.js';
import { FakeClock } from './fakeClock.js';
import { API_KEY, type FakeRunpod, type Reply, type Script, startFakeRunpod } from './fakeRunpod.js';

export interface Setup {
  readonly client: LlmBatchClient;
  readonly clock: FakeClock;
  readonly server: FakeRunpod;
}

export async function setUp(
  t: TestContext,
  script: Script | readonly Reply[],
  options: Partial<ClientOptions> = {},
): Promise<Setup> {
  const server = await startFakeRunpod(t, script);
  const clock = new FakeClock();
  const client = new LlmBatchClient({ baseUrl: server.url, apiKey: API_KEY, clock, ...options });
  return { client, clock, server };
}

export const BATCH_ID = 'batch_0123456789abcdef01234567';

export function requestOf(customId: string): BatchRequest {
  return { custom_id: customId, params: { messages: [{ role: 'user', content: 'Hello' }] } };
}

/** A request that fills a part by itself. */
export function heavyRequest(customId: string): BatchRequest {
  return { custom_id: customId, params: { messages: [{ role: 'user', content: 'x'.repeat(2_500_000) }] } };
}

export function statusOf(status: BatchStatus['processing_status'], succeeded = 0, total = 2): BatchStatus {
  return {
    id: BATCH_ID,
    processing_status: status,
    counts: { total, succeeded, errored: 0, pending: total - succeeded },
    created_at: '2026-08-01T00:00:00Z',
    updated_at: '2026-08-01T00:00:01Z',
  };
}

/** The error that a promise rejects with. */
export async function errorOf(promise: Promise<unknown>): Promise<Error & Record<string, unknown>> {
  try {
    await promise;
  } catch (error) {
    return error as Error & Record<string, unknown>;
  }
  throw new Error('expected an error, got none');
}
