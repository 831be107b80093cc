// Checks the event that the service posts to a batch's `callback_url`. It is signed by the convention of Standard
// Webhooks, so any library of that does as well.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { type Clock, systemClock } from './clock.js';
import { ConfigurationError, SignatureError } from './errors.js';
import type { BatchCounts } from './types.js';

const SECRET_PREFIX = 'whsec_';
const DEFAULT_TOLERANCE_S = 300;

/** What the service posts when a batch has ended. It may come more than once: with the same `id`. */
export interface CallbackEvent {
  /** The event's name, the same however often it is sent. */
  id: string;
  /** What happened. */
  type: 'batch.ended';
  /** When it happened (ISO 8601). */
  timestamp: string;
  /** The batch, as its status says it. */
  data: {
    /** The batch's id. */
    id: string;
    /** How far it is. */
    processing_status: 'ended';
    /** How its requests ended. */
    counts: BatchCounts;
    /** When it was created (ISO 8601). */
    created_at: string;
    /** When it ended (ISO 8601). */
    ended_at: string;
  };
}

/** Headers as `fetch` gives them, or as Node's http server and the frameworks on it do. */
export type CallbackHeaders =
  | { get(name: string): string | null }
  | Record<string, string | readonly string[] | undefined>;

/** How to check. */
export interface VerifyCallbackOptions {
  /** The service's CALLBACK_SECRET: `whsec_...`, or several between spaces while one replaces the other. */
  secret: string;
  /** How far the event's time may be from this machine's, in seconds; 300 by default. */
  toleranceS?: number;
  /** For tests. */
  clock?: Pick<Clock, 'now'>;
}

/**
 * The event, if the service sent it, it is whole, and it is no old one sent again by somebody else.
 * `body` is the request's body as it came, not parsed: JSON that is written again need not be the same bytes.
 * Throws SignatureError (answer 400 then), or ConfigurationError for a secret that is none.
 */
export function verifyCallback(
  body: string | Uint8Array,
  headers: CallbackHeaders,
  options: VerifyCallbackOptions,
): CallbackEvent {
  const id = header(headers, 'webhook-id');
  const timestamp = header(headers, 'webhook-timestamp');
  checkTime(timestamp, options);
  const signatures = header(headers, 'webhook-signature').split(' ');
  const expected = keysOf(options.secret).map((key) =>
    createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest(),
  );
  if (!signatures.some((signature) => expected.some((digest) => matches(signature, digest)))) {
    throw new SignatureError('The callback has no signature made with this secret');
  }
  const text = typeof body === 'string' ? body : Buffer.from(body).toString('utf8');
  return { ...JSON.parse(text), id };
}

function header(headers: CallbackHeaders, name: string): string {
  const value = isFetchHeaders(headers) ? headers.get(name) : headers[name];
  if (typeof value === 'string' && value !== '') return value;
  throw new SignatureError(`The callback has no header ${name}`);
}

function isFetchHeaders(headers: CallbackHeaders): headers is { get(name: string): string | null } {
  return typeof headers['get'] === 'function';
}

function checkTime(timestamp: string, options: VerifyCallbackOptions): void {
  const { toleranceS = DEFAULT_TOLERANCE_S, clock = systemClock } = options;
  const awayS = Math.abs(clock.now() / 1000 - Number(timestamp));
  if (!/^\d{1,12}$/.test(timestamp) || awayS > toleranceS) {
    throw new SignatureError(`The callback's time is more than ${toleranceS} s from this machine's`);
  }
}

function keysOf(secret: string): Buffer[] {
  return secret
    .trim()
    .split(/\s+/)
    .map((word) => {
      const key = Buffer.from(word.slice(SECRET_PREFIX.length), 'base64');
      if (word.startsWith(SECRET_PREFIX) && key.length > 0) return key;
      throw new ConfigurationError(`secret must be ${SECRET_PREFIX} and a key in base64`, 'secret');
    });
}

function matches(signature: string, expected: Buffer): boolean {
  if (!signature.startsWith('v1,')) return false;
  const given = Buffer.from(signature.slice(3), 'base64');
  return given.length === expected.length && timingSafeEqual(given, expected);
}
