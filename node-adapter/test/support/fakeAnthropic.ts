// Anthropic's batches API on localhost, as its SDK calls it: a batch ends when it is looked at the second time, and its
// results come in another order than its requests.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';

interface AnthropicRequest {
  custom_id: string;
  params: Record<string, unknown>;
}

interface Batch {
  readonly id: string;
  readonly requests: readonly AnthropicRequest[];
  looks: number;
  canceled: boolean;
}

export interface FakeAnthropic {
  readonly url: string;
  /** The requests of each batch, in the order of the creates. */
  readonly batches: readonly { readonly id: string; readonly requests: readonly AnthropicRequest[] }[];
  /** How many of the next creates are answered 500. */
  failCreates: number;
}

/** Starts the API; it ends with the test. */
export async function startFakeAnthropic(t: TestContext): Promise<FakeAnthropic> {
  const batches: Batch[] = [];
  const fake = { url: '', batches, failCreates: 0 };
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => answer(fake, request, Buffer.concat(chunks).toString('utf8'), response));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  fake.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return fake;
}

const ROUTE = /^\/v1\/messages\/batches(?:\/(\w+))?(?:\/(cancel|results))?$/;

function answer(
  fake: { url: string; batches: Batch[]; failCreates: number },
  request: IncomingMessage,
  body: string,
  response: ServerResponse,
): void {
  const [, id, action] = ROUTE.exec(request.url ?? '') ?? [];
  if (id === undefined) {
    create(fake, body, response);
    return;
  }
  const batch = fake.batches.find((known) => known.id === id);
  if (batch === undefined) refuse(response, 404, 'not_found_error', `no batch ${id}`);
  else if (action === 'results') sendLines(batch, response);
  else if (action === 'cancel') cancel(fake.url, batch, response);
  else {
    batch.looks += 1;
    send(response, batchOf(fake.url, batch));
  }
}

function create(
  fake: { url: string; batches: Batch[]; failCreates: number },
  body: string,
  response: ServerResponse,
) {
  if (fake.failCreates > 0) {
    fake.failCreates -= 1;
    refuse(response, 500, 'api_error', 'the create failed');
    return;
  }
  const batch: Batch = {
    id: `msgbatch_${String(fake.batches.length).padStart(24, '0')}`,
    requests: JSON.parse(body).requests,
    looks: 0,
    canceled: false,
  };
  fake.batches.push(batch);
  send(response, batchOf(fake.url, batch));
}

function cancel(url: string, batch: Batch, response: ServerResponse): void {
  if (isEnded(batch)) {
    refuse(response, 409, 'invalid_request_error', 'the batch has ended');
    return;
  }
  batch.canceled = true;
  send(response, batchOf(url, batch));
}

function isEnded(batch: Batch): boolean {
  return batch.looks >= 2;
}

function batchOf(url: string, batch: Batch): object {
  const ended = isEnded(batch);
  const results = batch.requests.map((request) => resultOf(batch, request).type);
  const count = (type: string) => (ended ? results.filter((result) => result === type).length : 0);
  return {
    id: batch.id,
    type: 'message_batch',
    processing_status: ended ? 'ended' : batch.canceled ? 'canceling' : 'in_progress',
    request_counts: {
      processing: ended ? 0 : results.length,
      succeeded: count('succeeded'),
      errored: count('errored'),
      canceled: count('canceled'),
      expired: 0,
    },
    created_at: '2026-08-01T00:00:00Z',
    expires_at: '2026-08-02T00:00:00Z',
    ended_at: ended ? '2026-08-01T00:05:00Z' : null,
    archived_at: null,
    cancel_initiated_at: batch.canceled ? '2026-08-01T00:01:00Z' : null,
    results_url: ended ? `${url}/v1/messages/batches/${batch.id}/results` : null,
  };
}

function resultOf(
  batch: Batch,
  { custom_id, params }: AnthropicRequest,
): { type: string } & Record<string, unknown> {
  if (batch.canceled) return { type: 'canceled' };
  if (JSON.stringify(params).includes('[[error]]')) {
    const error = { type: 'invalid_request_error', message: 'marked to fail' };
    return { type: 'errored', error: { type: 'error', error, request_id: null } };
  }
  return {
    type: 'succeeded',
    message: {
      id: 'msg_1',
      type: 'message',
      role: 'assistant',
      model: `${params['model']}-20251001`,
      content: [{ type: 'text', text: `<managed ${custom_id.replace(/^\w+-/, '')}>` }],
      stop_reason: 'end_turn',
      stop_sequence: null,
      usage: { input_tokens: 100, output_tokens: 10 },
    },
  };
}

function sendLines(batch: Batch, response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'application/x-jsonl' });
  for (const request of [...batch.requests].reverse()) {
    response.write(`${JSON.stringify({ custom_id: request.custom_id, result: resultOf(batch, request) })}\n`);
  }
  response.end();
}

function send(response: ServerResponse, body: object): void {
  response.writeHead(200, { 'content-type': 'application/json', 'request-id': 'req_1' });
  response.end(JSON.stringify(body));
}

function refuse(response: ServerResponse, status: number, type: string, message: string): void {
  response.writeHead(status, { 'content-type': 'application/json', 'request-id': 'req_1' });
  response.end(JSON.stringify({ type: 'error', error: { type, message }, request_id: 'req_1' }));
}
