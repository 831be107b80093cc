-- Looks at a lease again later; only where it still stands. `drop` removes one whose shard settled or was queued.
-- KEYS: waiting, running, shards
-- A: lease, shard, after_ms, drop
-- -> true
local WAITING, RUNNING, SHARDS = unpack(KEYS, 1, 3)
if A.drop then
  local shard = load_shard(SHARDS, A.shard)
  if is_over(shard) then
    redis.call('ZREM', WAITING, A.lease)
    redis.call('ZREM', RUNNING, A.lease)
  end
else
  redis.call('ZADD', WAITING, 'XX', NOW + A.after_ms, A.lease)
  redis.call('ZADD', RUNNING, 'XX', NOW + A.after_ms, A.lease)
end
return reply(true)
