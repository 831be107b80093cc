// Cuts the JSON text of a large create into parts. The text is scanned, never parsed: a batch may have 256 MB, and as
// objects it would take many times that.
import { Buffer } from 'node:buffer';

/** The text is not the JSON that it should be. */
export class MalformedJson extends Error {}

/** Where the top-level `"requests": [` of a body stands: its key, and the bracket. */
export interface RequestsPlace {
  readonly keyAt: number;
  readonly arrayAt: number;
}

/** A slice of the requests as a body of its own. */
export interface Part {
  readonly body: string;
  /** The index in the whole batch of its first request. */
  readonly firstRequest: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const SPACES = new Set([0x20, 0x09, 0x0a, 0x0d]);
const OPENING = new Set([0x7b, 0x5b]);
const CLOSING = new Set([0x7d, 0x5d]);

/** The place of the requests, or undefined where the text is no object that has an array of that name. */
export function findRequests(text: string): RequestsPlace | undefined {
  let at = afterSpace(text, 0);
  if (text[at] !== '{') return undefined;
  do {
    const keyAt = afterSpace(text, at + 1);
    if (text[keyAt] !== '"') return undefined;
    const keyEnd = endOfString(text, keyAt);
    const colon = afterSpace(text, keyEnd);
    if (text[colon] !== ':') return undefined;
    const valueAt = afterSpace(text, colon + 1);
    if (text.slice(keyAt, keyEnd) === '"requests"') {
      return text[valueAt] === '[' ? { keyAt, arrayAt: valueAt } : undefined;
    }
    at = afterSpace(text, endOfValue(text, valueAt));
  } while (text[at] === ',');
  return undefined;
}

/**
 * The parts, one by one, each of at most `maxBytes` unless a single request is larger. Returns where the array ends.
 * Throws MalformedJson where it has no end.
 */
export function* partsOf(
  text: string,
  { arrayAt }: RequestsPlace,
  maxBytes: number,
): Generator<Part, number, void> {
  let part = { startsAt: arrayAt + 1, endsAt: arrayAt + 1, bytes: 0, firstRequest: 0 };
  let requests = 0;
  const elements = elementsOf(text, arrayAt);
  for (;;) {
    const { done, value } = elements.next();
    if (done) {
      if (part.bytes > 0) yield bodyOf(text, part);
      return value;
    }
    const bytes = Buffer.byteLength(text.slice(part.endsAt, value.endsAt));
    if (part.bytes > 0 && part.bytes + bytes > maxBytes) {
      yield bodyOf(text, part);
      part = { ...value, bytes, firstRequest: requests };
    } else {
      part = { ...part, endsAt: value.endsAt, bytes: part.bytes + bytes };
    }
    requests += 1;
  }
}

/** The create's body with `"upload": reference` in place of its requests, whose array ends at `arrayEnd`. */
export function byReference(text: string, place: RequestsPlace, arrayEnd: number, reference: object): string {
  return `${text.slice(0, place.keyAt)}"upload":${JSON.stringify(reference)}${text.slice(arrayEnd)}`;
}

interface Span {
  readonly startsAt: number;
  readonly endsAt: number;
}

function bodyOf(text: string, { startsAt, endsAt, firstRequest }: Span & { firstRequest: number }): Part {
  return { body: `{"requests":[${text.slice(startsAt, endsAt)}]}`, firstRequest };
}

function* elementsOf(text: string, arrayAt: number): Generator<Span, number, void> {
  let startsAt = afterSpace(text, arrayAt + 1);
  if (text[startsAt] === ']') return startsAt + 1;
  for (;;) {
    const endsAt = endOfValue(text, startsAt);
    if (endsAt === startsAt) throw new MalformedJson(`a value is missing at character ${startsAt}`);
    yield { startsAt, endsAt };
    const next = afterSpace(text, endsAt);
    if (text[next] === ']') return next + 1;
    if (text[next] !== ',') throw new MalformedJson(`a comma is missing at character ${next}`);
    startsAt = afterSpace(text, next + 1);
  }
}

function endOfValue(text: string, start: number): number {
  let depth = 0;
  let at = start;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (depth === 0 && (code === COMMA || CLOSING.has(code))) return at;
    if (OPENING.has(code)) depth += 1;
    else if (CLOSING.has(code)) depth -= 1;
    const next = code === QUOTE ? endOfString(text, at) : at + 1;
    // A bracket or a quote that closed the value; a number or a word goes on until what follows it.
    if (depth === 0 && (code === QUOTE || CLOSING.has(code))) return next;
    at = next;
  }
  throw new MalformedJson('the text ends within a value');
}

function endOfString(text: string, openingQuote: number): number {
  let quote = text.indexOf('"', openingQuote + 1);
  while (quote !== -1) {
    let backslashes = 0;
    while (text.charCodeAt(quote - 1 - backslashes) === BACKSLASH) backslashes += 1;
    if (backslashes % 2 === 0) return quote + 1;
    quote = text.indexOf('"', quote + 1);
  }
  throw new MalformedJson('the text ends within a string');
}

function afterSpace(text: string, start: number): number {
  let at = start;
  while (SPACES.has(text.charCodeAt(at))) at += 1;
  return at;
}
