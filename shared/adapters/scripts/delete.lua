-- Deletion in two steps, resumable: "mark" hides an ended batch; "finish", when its payloads are gone, removes its records
-- and leaves a note for an hour, so that a repeated delete is answered alike.
-- KEYS: batch, shards, plan, batches, note
-- A: id, step ("mark"|"finish")
-- -> {verdict: "marked"|"done"|"open"|"gone", nonce}
local BATCH, SHARDS, PLAN, BATCHES, NOTE = unpack(KEYS, 1, 5)
local status = field(BATCH, 'status')
if not status then
  return reply({verdict = redis.call('EXISTS', NOTE) == 1 and 'done' or 'gone'})
end
if status ~= 'ended' then return reply({verdict = 'open'}) end

if A.step == 'finish' then
  -- Freed beside other calls: a large batch has ten thousands of shards.
  redis.call('UNLINK', BATCH, SHARDS, PLAN)
  redis.call('ZREM', BATCHES, A.id)
  redis.call('SET', NOTE, '1', 'PX', 3600000)
  return reply({verdict = 'done'})
end
redis.call('HSET', BATCH, 'deleted', '1')
return reply({verdict = 'marked', nonce = field(BATCH, 'nonce')})
