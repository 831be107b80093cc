// Cutting a batch into parts while its requests are produced. Each part is a list of requests as JSON text.
import { Buffer } from 'node:buffer';
import { RequestTooLargeError } from './errors.js';
import { FAILURE_PREFIX } from './wire.js';

/** The most bytes of JSON text in one part. RunPod takes 20 MB a call; a smaller one is resent sooner and held cheaper. */
export const PART_MAX_BYTES = 8_000_000;

/** Requests that stand next to each other in a batch. */
export interface Part {
  /** Its place among the parts, from 0. */
  readonly number: number;
  /** The place of its first request in the batch, from 0. */
  readonly first: number;
  /** How many requests it has. */
  readonly requests: number;
  /** The list of its requests: JSON in UTF-8. */
  readonly json: Buffer;
  /** Whether the batch ends with it. */
  readonly last: boolean;
}

/**
 * The parts of a batch, each as large as it may be: the same requests are always cut alike. Takes a request only when
 * a part is asked for. Throws RequestTooLargeError for a request that no part can hold.
 */
export async function* cutParts<T>(
  requests: Iterable<T> | AsyncIterable<T>,
  maxBytes: number = PART_MAX_BYTES,
): AsyncGenerator<Part, void, void> {
  let [number, first, bytes] = [0, 0, 1];
  let texts: string[] = [];
  for await (const request of requests) {
    // As JSON.stringify writes undefined in a list.
    const text = JSON.stringify(request) ?? 'null';
    // Each has a comma or the closing bracket behind it.
    const size = Buffer.byteLength(text) + 1;
    if (size + 1 > maxBytes) throw tooLarge(first + texts.length, size - 1, maxBytes);
    if (bytes + size > maxBytes) {
      yield { number, first, requests: texts.length, json: listOf(texts, bytes), last: false };
      number += 1;
      first += texts.length;
      [texts, bytes] = [[], 1];
    }
    texts.push(text);
    bytes += size;
  }
  yield { number, first, requests: texts.length, json: listOf(texts, bytes), last: true };
}

/** An error's text in which `requests[i]` counts over the whole batch. */
export function countedOverBatch(text: string, part: Part | undefined): string {
  if (part === undefined || part.first === 0) return text;
  return text.replace(/\brequests\[(\d+)\]/g, (_, place) => `requests[${part.first + Number(place)}]`);
}

function listOf(texts: readonly string[], bytes: number): Buffer {
  const json = Buffer.allocUnsafe(Math.max(2, bytes));
  let end = json.write('[');
  for (const text of texts) {
    end += json.write(text, end);
    end += json.write(',', end);
  }
  json.write(']', json.length - 1);
  return json;
}

function tooLarge(index: number, bytes: number, maxBytes: number): RequestTooLargeError {
  const param = `requests[${index}]`;
  const message = `${FAILURE_PREFIX.create}: 413 ${param}: ${bytes} bytes of JSON, over the limit of ${maxBytes - 2} for one request`;
  return new RequestTooLargeError(message, { status: 413, type: 'request_too_large', param });
}
