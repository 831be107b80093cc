-- Stores the RunPod job ids of claimed shards. Never overwrites one that runs already (its start came first).
-- KEYS: waiting, failures, rest, then batch and shards per item
-- A: items [{batch, shard, attempt, job}], lease_ms, healthy (none was refused beside them)
-- -> [state of each shard]
local WAITING, FAILURES, REST = unpack(KEYS, 1, 3)
local states = {}
if A.healthy then
  redis.call('DEL', FAILURES)
  if redis.call('GET', REST) == 'probe' then redis.call('DEL', REST) end
end
for i, item in ipairs(A.items) do
  local batch, shards = KEYS[2 + 2 * i], KEYS[3 + 2 * i]
  local shard = not is_gone(batch) and load_shard(shards, item.shard)
  if shard and shard.state == 'claimed' and shard.attempt == item.attempt then
    shard.state, shard.job, shard.since = 'submitted', item.job, NOW
    save_shard(shards, item.shard, shard)
    redis.call('ZADD', WAITING, 'XX', NOW + A.lease_ms, item.batch .. ':' .. item.shard)
    advance(batch, 'submitted')
  end
  states[i] = shard and shard.state or 'gone'
end
return reply(states)
