-- What a lease stands for. A lease whose batch or shard is gone is dropped here.
-- KEYS: batch, shards, waiting, running
-- A: id, shard
-- -> {shard: json|null, nonce, now, requests}
local BATCH, SHARDS, WAITING, RUNNING = unpack(KEYS, 1, 4)
local text = not is_gone(BATCH) and redis.call('HGET', SHARDS, A.shard)
if not text then
  redis.call('ZREM', WAITING, A.id .. ':' .. A.shard)
  redis.call('ZREM', RUNNING, A.id .. ':' .. A.shard)
  return reply({shard = cjson.null, now = NOW})
end
return reply({shard = text, nonce = field(BATCH, 'nonce'), now = NOW})
