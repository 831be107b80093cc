-- One process says that its shards live, with their progress, and learns which of them it must stop.
-- KEYS: running, then batch and shards per item
-- A: items [{batch, shard, epoch, succeeded, errored}], lease_ms
-- -> ["ok"|"lost"|"canceled"|"expired" per item]
local RUNNING = KEYS[1]
local answers = {}
for i, item in ipairs(A.items) do
  local batch, shards = KEYS[2 * i], KEYS[2 * i + 1]
  local shard = not is_gone(batch) and load_shard(shards, item.shard)
  if not shard or shard.state ~= 'running' or shard.epoch ~= item.epoch then
    answers[i] = 'lost'
  else
    set_live(batch, shard, item.succeeded, item.errored)
    shard.beat = NOW
    save_shard(shards, item.shard, shard)
    redis.call('ZADD', RUNNING, 'XX', NOW + A.lease_ms, item.batch .. ':' .. item.shard)
    local expired = NOW >= number(batch, 'expires_at') and 'expired'
    answers[i] = field(batch, 'stop') or expired or 'ok'
  end
end
return reply(answers)
