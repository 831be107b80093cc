// Cutting a batch into parts while its requests are produced. Each part is a list of requests as JSON text.
import { Buffer } from 'node:buffer';
import { RequestTooLargeError } from './errors.js';
import { FAILURE_PREFIX } from './wire.js';

/**
 * The most bytes of JSON text in one part. RunPod takes 20 MB a call, but fetch copies a body and Node frees it late: with
 * parts of 8 MB an upload peaks at 300 MB of memory, with these at 200.
 */
export const PART_MAX_BYTES = 4_000_000;

const BRACKETS = 2;
const COMMA = 1;

/** Requests that stand next to each other in a batch, and the call that brings them to the service. */
export interface Part {
  /** Its place among the parts, from 0. */
  readonly number: number;
  /** The place of its first request in the batch, from 0. */
  readonly first: number;
  /** How many requests it has. */
  readonly requests: number;
  /** How many bytes of JSON these are. */
  readonly bytes: number;
  /** Whether the batch ends with it. */
  readonly last: boolean;
  /** The call's body: JSON in UTF-8. */
  readonly body: Buffer;
}

/** What stands around the list of requests in the body of a part's call: the text before it and the text after it. */
export type Frame = (part: { readonly number: number; readonly last: boolean }) => readonly [string, string];

/**
 * The parts of a batch, each as large as it may be: the same requests are always cut alike. Takes a request only when
 * a part is asked for. Throws RequestTooLargeError for a request that no part can hold.
 */
export async function* cutParts<T>(
  requests: Iterable<T> | AsyncIterable<T>,
  frame: Frame,
  maxBytes: number = PART_MAX_BYTES,
): AsyncGenerator<Part, void, void> {
  let [number, first, texts, bytes]: [number, number, string[], number] = [0, 0, [], BRACKETS];
  const part = (last: boolean): Part => {
    const body = bodyOf(texts, bytes, frame({ number, last }));
    return { number, first, requests: texts.length, bytes, last, body };
  };
  for await (const request of requests) {
    // As JSON.stringify writes undefined in a list.
    const text = JSON.stringify(request) ?? 'null';
    const size = Buffer.byteLength(text);
    const index = first + texts.length;
    if (size + BRACKETS > maxBytes) throw tooLarge(index, size, maxBytes - BRACKETS);
    if (texts.length > 0 && bytes + COMMA + size > maxBytes) {
      yield part(false);
      [number, first, texts, bytes] = [number + 1, index, [], BRACKETS];
    }
    bytes += texts.length > 0 ? COMMA + size : size;
    texts.push(text);
  }
  yield part(true);
}

/** An error's text about a part that begins at `first`: `requests[i]` counts over the whole batch in it. */
export function countedOverBatch(text: string, first: number): string {
  if (first === 0) return text;
  return text.replace(/\brequests\[(\d+)\]/g, (_, place) => `requests[${first + Number(place)}]`);
}

// Written once into one buffer: copies of parts are what an upload would hold most.
function bodyOf(texts: readonly string[], bytes: number, [head, tail]: readonly [string, string]): Buffer {
  const body = Buffer.allocUnsafe(Buffer.byteLength(head) + bytes + Buffer.byteLength(tail));
  let end = body.write(`${head}[`);
  for (const [n, text] of texts.entries()) {
    if (n > 0) end += body.write(',', end);
    end += body.write(text, end);
  }
  body.write(`]${tail}`, end);
  return body;
}

function tooLarge(index: number, bytes: number, maxBytes: number): RequestTooLargeError {
  const param = `requests[${index}]`;
  const message = `${FAILURE_PREFIX.create}: 413 ${param}: ${bytes} bytes of JSON, over the limit of ${maxBytes} for one request`;
  return new RequestTooLargeError(message, { status: 413, type: 'request_too_large', param });
}
