import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { type CallbackHeaders, verifyCallback } from '../src/callback.js';
import { isConfigurationError, isSignatureError } from '../src/errors.js';

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const OTHER = `whsec_${randomBytes(32).toString('base64')}`;
const AT_S = 1614265330;
const ID = 'evt_0123456789abcdef01234567';
const EVENT = {
  type: 'batch.ended',
  timestamp: '2021-02-25T15:02:10.000Z',
  data: {
    id: 'batch_0123456789abcdef01234567',
    processing_status: 'ended',
    counts: { total: 1, succeeded: 1, errored: 0, pending: 0 },
    created_at: '2021-02-25T15:00:00.000Z',
    ended_at: '2021-02-25T15:02:10.000Z',
  },
};
const BODY = JSON.stringify({ ...EVENT, note: 'ключ 🦔' });
const clock = { now: () => AT_S * 1000 };
const options = { secret: SECRET, clock };

function signed(body: string, secret = SECRET, atS = AT_S, id = ID): Record<string, string> {
  const key = Buffer.from(secret.slice('whsec_'.length), 'base64');
  const signature = createHmac('sha256', key).update(`${id}.${atS}.${body}`).digest('base64');
  return { 'webhook-id': id, 'webhook-timestamp': `${atS}`, 'webhook-signature': `v1,${signature}` };
}

const fails = (
  body: string,
  headers: CallbackHeaders,
  guard: (error: unknown) => boolean = isSignatureError,
  changed = {},
) => assert.throws(() => verifyCallback(body, headers, { ...options, ...changed }), guard);

test("the convention's own example is genuine", () => {
  const headers = {
    'webhook-id': 'msg_p5jXN8AQM9LWM0D4loKWxJek',
    'webhook-timestamp': '1614265330',
    'webhook-signature': 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
  };
  const event = verifyCallback('{"test": 2432232314}', headers, options);
  assert.deepEqual(event, { test: 2432232314, id: 'msg_p5jXN8AQM9LWM0D4loKWxJek' });
});

test('an event comes back with its id, whatever holds its headers and its body', () => {
  const headers = signed(BODY);
  const expected = { ...EVENT, note: 'ключ 🦔', id: ID };
  for (const given of [
    headers,
    new Headers(headers),
    new Map(Object.entries(headers)),
  ] as CallbackHeaders[]) {
    for (const body of [BODY, Buffer.from(BODY), new TextEncoder().encode(BODY)]) {
      assert.deepEqual(verifyCallback(body, given, options), expected);
    }
  }
});

test('while a secret is replaced, either side may know both', () => {
  const [old, fresh] = [signed(BODY), signed(BODY, OTHER)];
  const both = { ...old, 'webhook-signature': `${old['webhook-signature']} ${fresh['webhook-signature']}` };
  assert.equal(verifyCallback(BODY, both, { secret: OTHER, clock }).id, ID);
  assert.equal(verifyCallback(BODY, both, { secret: SECRET, clock }).id, ID);
  assert.equal(verifyCallback(BODY, old, { secret: `${OTHER} ${SECRET}`, clock }).id, ID);
  assert.equal(verifyCallback(BODY, fresh, { secret: ` ${SECRET}  ${OTHER} `, clock }).id, ID);
});

test('whatever was changed, or signed by another, is refused', () => {
  fails(BODY, signed(BODY, OTHER));
  fails(`${BODY} `, signed(BODY));
  fails(BODY, { ...signed(BODY), 'webhook-id': 'evt_other' });
  fails(BODY, { ...signed(BODY), 'webhook-timestamp': `${AT_S + 1}` });
  for (const signature of ['v1,', 'v1', 'x', 'v2,abc', 'v1,ж', ' ', 'v1,AAAA']) {
    fails(BODY, { ...signed(BODY), 'webhook-signature': signature });
  }
  const { 'webhook-signature': real } = signed(BODY);
  fails(BODY, { ...signed(BODY), 'webhook-signature': `v1a,${real?.slice(3)}` });
});

test('a header that is missing, empty or there twice is refused by name', () => {
  for (const name of Object.keys(signed(BODY))) {
    for (const value of [undefined, '', ['a', 'b']]) {
      assert.throws(() => verifyCallback(BODY, { ...signed(BODY), [name]: value }, options), {
        name: 'SignatureError',
        message: `The callback has no header ${name}`,
      });
    }
  }
});

test('an event of another time is refused, though its signature is right', () => {
  for (const atS of [AT_S - 301, AT_S + 301]) fails(BODY, signed(BODY, SECRET, atS));
  for (const atS of [AT_S - 299, AT_S + 299]) {
    assert.equal(verifyCallback(BODY, signed(BODY, SECRET, atS), options).id, ID);
  }
  fails(BODY, signed(BODY, SECRET, AT_S - 11), isSignatureError, { toleranceS: 10 });
  for (const atS of ['', 'x', '1e9', 'NaN', '-1', '0x60']) {
    fails(BODY, signed(BODY, SECRET, atS as unknown as number), isSignatureError, { toleranceS: Infinity });
  }
});

test('a secret that is none is a fault of the configuration', () => {
  for (const secret of ['', 'whsec_', 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', `${SECRET} x`]) {
    fails(BODY, signed(BODY), isConfigurationError, { secret });
  }
});
