// A batch on two sides, read back as one. Nothing is stored for it: its id names both halves, and in a split batch
// each custom_id carries the request's place in the whole, since the managed side gives results in any order.
import { InvalidRequestError, ServerError } from '../errors.js';
import type { Side } from './route.js';

/** A batch, or a half of one, as its own side knows it. */
export interface Half {
  readonly side: Side;
  readonly id: string;
}

interface Named {
  readonly custom_id: string;
}

// Our own ids, which have no colon in them.
const LOCAL_ID = /^batch_[0-9a-f]+$/;

/** `local:<id>`, `remote:<id>`, or `split:<local id>:<remote id>`. */
export function formatBatchId(ids: { local?: string; remote?: string }): string {
  const { local, remote } = ids;
  if (local !== undefined && remote !== undefined) return `split:${local}:${remote}`;
  return local === undefined ? `remote:${remote}` : `local:${local}`;
}

/** The halves that an id names. An id from before the router is of the side that makes such ids. */
export function halvesOf(batchId: string): Half[] {
  const [, side, id = ''] = /^(local|remote):(.+)$/s.exec(batchId) ?? [];
  if (side === 'local' || side === 'remote') return [{ side, id }];
  const [, local, remote] = /^split:([^:]+):(.+)$/s.exec(batchId) ?? [];
  if (local === undefined || remote === undefined) {
    return [{ side: LOCAL_ID.test(batchId) ? 'local' : 'remote', id: batchId }];
  }
  return [
    { side: 'local', id: local },
    { side: 'remote', id: remote },
  ];
}

/** `requests` with each place in front of its custom_id: `2s-lead_42_email`. */
export function numbered<Q extends Named>(requests: readonly Q[]): Q[] {
  return requests.map((request, n) => ({ ...request, custom_id: numberedId(request.custom_id, n) }));
}

/** Throws InvalidRequestError for the first custom_id that has no room for its place. */
export function checkRoom(requests: readonly Named[], maxChars: number): void {
  for (const [n, { custom_id }] of requests.entries()) {
    const spare = maxChars - numberedId('', n).length;
    if (custom_id.length <= spare) continue;
    const param = `requests[${n}].custom_id`;
    throw new InvalidRequestError(
      `Failed to create batch: 400 ${param}: at most ${spare} characters while batches are split (it has ${custom_id.length})`,
      { status: 400, type: 'invalid_request_error', param },
    );
  }
}

function numberedId(customId: string, n: number): string {
  return `${n.toString(36)}-${customId}`;
}

/** One half as it is read. */
class Reading<L extends Named> {
  readonly #lines: AsyncIterator<L>;
  /** The place of the last line read. */
  last = -1;
  open = true;

  constructor(lines: AsyncIterable<L>) {
    this.#lines = lines[Symbol.asyncIterator]();
  }

  /** Puts the next line under its place, as the caller named it. */
  async readInto(waiting: Map<number, L>): Promise<void> {
    const next = await this.#lines.next();
    if (next.done === true) {
      this.open = false;
      return;
    }
    const [, place, customId] = /^([0-9a-z]+)-(.*)$/s.exec(next.value.custom_id) ?? [];
    if (place === undefined || customId === undefined) {
      throw new ServerError('Failed to get batch results: 502 a half of a split batch has a foreign result', {
        status: 502,
        type: 'api_error',
      });
    }
    this.last = Number.parseInt(place, 36);
    waiting.set(this.last, { ...next.value, custom_id: customId });
  }

  async close(): Promise<void> {
    await this.#lines.return?.();
  }
}

/**
 * The lines of both halves in the order of the requests. Holds only what came before its turn: nothing where both
 * halves come in order. A half that can't be read yet says so before the first line is given.
 */
export async function* inOrder<L extends Named>(
  halves: readonly AsyncIterable<L>[],
): AsyncGenerator<L, void, void> {
  const readings = halves.map((lines) => new Reading(lines));
  const waiting = new Map<number, L>();
  try {
    await Promise.all(readings.map((reading) => reading.readInto(waiting)));
    for (let place = 0; ; ) {
      const line = waiting.get(place);
      if (line !== undefined) {
        waiting.delete(place);
        place += 1;
        yield line;
        continue;
      }
      const open = readings.filter((reading) => reading.open);
      const [first, ...others] = open;
      if (first === undefined) break;
      // The half that lags behind is the likelier one to have it.
      await others.reduce((a, b) => (b.last < a.last ? b : a), first).readInto(waiting);
    }
    // Partial results have gaps.
    for (const [, line] of [...waiting].sort(([a], [b]) => a - b)) yield line;
  } finally {
    await Promise.all(readings.map((reading) => reading.close()));
  }
}
