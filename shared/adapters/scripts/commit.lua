-- Makes a batch whose payloads are already stored; the loser of a race for an idempotency key leaves only payloads
-- that expire. O(1) in the batch's size.
-- KEYS: batch, open, batches, seq, idem (the batch's own key where there is none), then queue and vtime per model
-- A: id, idem_hash|null, fields {..}, plans {model: json}, models [..], expires_in_ms, retain_ms
-- -> {verdict: "created"|"existing"|"mismatch", id, head: its member in the queues where it was created}
local BATCH, OPEN, BATCHES, SEQ, IDEM = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local KEEP_LISTED_MS = 60 * DAY_MS

local hash = A.idem_hash ~= cjson.null and A.idem_hash
if hash then
  local known = redis.call('HMGET', IDEM, 'id', 'hash')
  if known[1] then
    return reply({verdict = known[2] == hash and 'existing' or 'mismatch', id = known[1]})
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
for model, plan in pairs(A.plans) do redis.call('HSET', BATCH, 'plan:' .. model, plan) end
redis.call('PEXPIREAT', BATCH, keep_until)
redis.call('ZADD', OPEN, expires_at, A.id)
redis.call('ZADD', BATCHES, NOW, A.id)
redis.call('ZREMRANGEBYSCORE', BATCHES, '-inf', NOW - KEEP_LISTED_MS)
for i = 1, #A.models do
  local queue, vtime = KEYS[4 + 2 * i], KEYS[5 + 2 * i]
  redis.call('ZADD', queue, redis.call('GET', vtime) or '0', member)
  redis.call('PEXPIRE', queue, KEEP_LISTED_MS)
  redis.call('PEXPIRE', vtime, KEEP_LISTED_MS)
end
for _, key in ipairs({OPEN, BATCHES, SEQ}) do redis.call('PEXPIRE', key, KEEP_LISTED_MS) end
if hash then
  redis.call('HSET', IDEM, 'id', A.id, 'hash', hash)
  redis.call('PEXPIREAT', IDEM, keep_until)
end
return reply({verdict = 'created', id = A.id, head = member})
