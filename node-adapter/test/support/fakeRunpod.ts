// A queue endpoint on localhost that answers as a test's script says, and remembers every call.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';

export const API_KEY = 'rpa_TESTKEY0123456789';

/** A call as it came in. */
export interface Received {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
  /** The operation's input, if the body has one. */
  readonly input: Record<string, unknown>;
}

/** What the server does with a call: an answer, or `drop` the connection, or `hang` until the server closes. */
export type Reply =
  | { readonly status: number; readonly body: string; readonly headers?: Record<string, string> }
  | 'drop'
  | 'hang';

/** Answers the n-th call (from 0), now or later. */
export type Script = (call: Received, n: number) => Reply | Promise<Reply>;

export interface FakeRunpod {
  readonly url: string;
  readonly calls: Received[];
}

/** Starts the server; it ends with the test. */
export async function startFakeRunpod(
  t: TestContext,
  script: Script | readonly Reply[],
): Promise<FakeRunpod> {
  const answer: Script = typeof script === 'function' ? script : (_, n) => script[n] ?? unexpected(n);
  const calls: Received[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', async () => {
      const received = receivedOf(request, Buffer.concat(chunks).toString('utf8'));
      calls.push(received);
      send(await answer(received, calls.length - 1), request, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/v2/batch-api`, calls };
}

function receivedOf(request: IncomingMessage, text: string): Received {
  const input = text === '' ? {} : JSON.parse(text).input;
  const path = (request.url ?? '').replace('/v2/batch-api', '');
  return { method: request.method ?? '', path, headers: request.headers, text, input };
}

function send(reply: Reply, request: IncomingMessage, response: ServerResponse): void {
  if (reply === 'hang') return;
  if (reply === 'drop') {
    request.socket.destroy();
    return;
  }
  response.writeHead(reply.status, { 'content-type': 'application/json', ...reply.headers });
  response.end(reply.body);
}

function unexpected(n: number): Reply {
  return { status: 400, body: `the script has no answer for call ${n}` };
}

const JOB_ID = 'sync-5f8d4a2e-0001-u1';

/** A job that succeeded. */
export function completed(output: unknown): Reply {
  const job = {
    delayTime: 12,
    executionTime: 40,
    id: JOB_ID,
    output,
    status: 'COMPLETED',
    workerId: 'w1',
  };
  return { status: 200, body: JSON.stringify(job) };
}

/** A job that failed with this text in RunPod's `error` field. */
export function failed(error: string, status = 'FAILED'): Reply {
  return { status: 200, body: JSON.stringify({ id: JOB_ID, status, error, retries: 1 }) };
}

/** A job that failed with the handler's own error. */
export function refused(status: number, type: string, message: string, param?: string): Reply {
  const body = {
    type: 'error',
    status_code: status,
    error: { type, message, ...(param === undefined ? {} : { param }) },
    request_id: 'req_42',
  };
  return failed(JSON.stringify(body));
}

/** A job that is not done yet. */
export function unfinished(status: 'IN_QUEUE' | 'IN_PROGRESS' | 'RUNNING' = 'IN_QUEUE'): Reply {
  return { status: 200, body: JSON.stringify({ id: JOB_ID, status }) };
}

/** An HTTP answer that is no job. */
export function http(status: number, body = '', headers: Record<string, string> = {}): Reply {
  return { status, body, headers };
}
