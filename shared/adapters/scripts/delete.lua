-- Deletion in two steps, resumable: "mark" hides an ended batch and says what to remove from storage; "finish" removes
-- its records and leaves a note for an hour, so that a repeated delete is answered alike and a list goes on from there.
-- KEYS: batch, shards, batches, note, callbacks
-- A: id, step ("mark"|"finish")
-- -> {verdict: "marked"|"done"|"open"|"gone", nonce, shards, epochs: {shard: epoch}}
local BATCH, SHARDS, BATCHES, NOTE, CALLBACKS = unpack(KEYS, 1, 5)
local status = field(BATCH, 'status')
if not status then
  return reply({verdict = redis.call('EXISTS', NOTE) == 1 and 'done' or 'gone'})
end
if status ~= 'ended' then return reply({verdict = 'open'}) end

if A.step == 'finish' then
  local created = field(BATCH, 'created_at')
  redis.call('DEL', BATCH, SHARDS)
  redis.call('ZREM', BATCHES, A.id)
  redis.call('SET', NOTE, created, 'PX', 3600000)
  return reply({verdict = 'done'})
end
redis.call('HSET', BATCH, 'deleted', '1')
redis.call('ZREM', CALLBACKS, A.id)
local epochs = {}
local flat = redis.call('HGETALL', SHARDS)
for i = 1, #flat, 2 do epochs[flat[i]] = cjson.decode(flat[i + 1]).epoch end
return reply({verdict = 'marked', nonce = field(BATCH, 'nonce'), shards = number(BATCH, 'shards'), epochs = epochs})
