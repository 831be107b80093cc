-- Makes a batch whose payloads are already stored; the loser of a race for an idempotency key leaves only payloads
-- that expire. O(1) in the batch's shards; its plan has one entry per part. An upload makes one batch.
-- KEYS: batch, plan, open, batches, seq, idem and upload (the batch's own key where there is none), then queue and vtime
-- per model
-- A: id, idem_hash|null, upload_hash|null, fields {..}, parts [json], totals: json, models [..], requests [..], expires_in_ms,
-- retain_ms
-- -> {verdict: "created"|"existing"|"mismatch", id, head: its member in the queues where it was created}
local BATCH, PLAN, OPEN, BATCHES, SEQ, IDEM, UPLOAD = unpack(KEYS, 1, 7)
local FIRST_MODEL = 8
local KEEP_LISTED_MS = 60 * DAY_MS

local hashes = {}
if A.idem_hash ~= cjson.null then hashes[#hashes + 1] = {IDEM, A.idem_hash} end
if A.upload_hash ~= cjson.null then hashes[#hashes + 1] = {UPLOAD, A.upload_hash} end
for _, pair in ipairs(hashes) do
  local known = redis.call('HMGET', pair[1], 'id', 'hash')
  if known[1] then
    return reply({verdict = known[2] == pair[2] and 'existing' or 'mismatch', id = known[1]})
  end
end
if redis.call('EXISTS', BATCH) == 1 then return reply({verdict = 'created', id = A.id, head = field(BATCH, 'member')}) end

local expires_at = NOW + A.expires_in_ms
local keep_until = expires_at + A.retain_ms
local seq = redis.call('INCR', SEQ)
-- Ties in a queue go by member, so a member starts with the batch's number of arrival.
local member = string.format('%015d:%s', seq, A.id)
redis.call('HSET', BATCH, 'status', 'collected', 'created_at', NOW, 'updated_at', NOW, 'expires_at', expires_at,
  'keep_until', keep_until, 'member', member, 'succeeded', 0, 'errored', 0, 'canceled', 0, 'expired', 0)
for name, value in pairs(A.fields) do redis.call('HSET', BATCH, name, value) end
redis.call('HSET', BATCH, 'parts', #A.parts)
for i, plan in ipairs(A.parts) do redis.call('HSET', PLAN, i - 1, plan) end
redis.call('HSET', PLAN, 'totals', A.totals)
redis.call('PEXPIREAT', BATCH, keep_until)
redis.call('PEXPIREAT', PLAN, keep_until)
redis.call('ZADD', OPEN, expires_at, A.id)
redis.call('ZADD', BATCHES, NOW, A.id)
redis.call('ZREMRANGEBYSCORE', BATCHES, '-inf', NOW - KEEP_LISTED_MS)
for i, model in ipairs(A.models) do
  local queue, vtime = KEYS[FIRST_MODEL + 2 * (i - 1)], KEYS[FIRST_MODEL + 2 * (i - 1) + 1]
  redis.call('HSET', BATCH, 'requests:' .. model, A.requests[i])
  redis.call('ZADD', queue, redis.call('GET', vtime) or '0', member)
  redis.call('PEXPIRE', queue, KEEP_LISTED_MS)
  redis.call('PEXPIRE', vtime, KEEP_LISTED_MS)
end
for _, key in ipairs({OPEN, BATCHES, SEQ}) do redis.call('PEXPIRE', key, KEEP_LISTED_MS) end
for _, pair in ipairs(hashes) do
  redis.call('HSET', pair[1], 'id', A.id, 'hash', pair[2])
  redis.call('PEXPIREAT', pair[1], keep_until)
end
return reply({verdict = 'created', id = A.id, head = member})
