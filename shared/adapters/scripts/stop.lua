-- Cancels or expires a batch: nothing more is handed out, whatever does not run yet is settled at once, and running
-- shards learn of it by their next beat. O(1) in what was not handed out, and small in what waits.
-- KEYS: batch, shards, open, metrics:batches, then queue, delayed and metrics per model, then waiting per endpoint
-- A: id, reason ("canceled"|"expired"), call (a nonce of this call), models [..], endpoints [..]
-- -> {verdict: "stopped"|"ended"|"gone"|"early", jobs: [{endpoint, job}]}
local BATCH, SHARDS, OPEN, METRICS_BATCHES = unpack(KEYS, 1, 4)
local FIRST_MODEL = 5
local FIRST_ENDPOINT = FIRST_MODEL + 3 * #A.models
local LOOK_AGAIN_MS = 15000

if is_gone(BATCH) then
  redis.call('ZREM', OPEN, A.id)
  return reply({verdict = 'gone', jobs = {}})
end
if field(BATCH, 'status') == 'ended' then
  -- The same call again, after a lost reply, finds its own work.
  return reply({verdict = field(BATCH, 'stop_call') == A.call and 'stopped' or 'ended', jobs = {}})
end
if A.reason == 'expired' and NOW < number(BATCH, 'expires_at') then return reply({verdict = 'early', jobs = {}}) end
local reason = field(BATCH, 'stop')
if not reason then
  reason = A.reason
  redis.call('HSET', BATCH, 'stop', reason, 'stop_at', NOW, 'updated_at', NOW)
end
redis.call('HSET', BATCH, 'stop_call', A.call)

local metrics = {}
local member = field(BATCH, 'member')
for i, model in ipairs(A.models) do
  local queue, delayed = KEYS[FIRST_MODEL + 3 * (i - 1)], KEYS[FIRST_MODEL + 3 * (i - 1) + 1]
  metrics[model] = KEYS[FIRST_MODEL + 3 * (i - 1) + 2]
  local requests, handed = number(BATCH, 'requests:' .. model), 'handed:' .. model
  if requests > 0 then
    count(BATCH, metrics[model], reason, requests - number(BATCH, handed))
    redis.call('HSET', BATCH, handed, requests)
  end
  redis.call('ZREM', queue, member)
  redis.call('ZREM', delayed, member)
  for _, entry in ipairs(retries(BATCH, model)) do
    settle_without_output(BATCH, SHARDS, metrics[model], entry[1], load_shard(SHARDS, entry[1]), reason, '')
  end
  save_retries(BATCH, model, {})
end

local jobs = {}
local prefix = A.id .. ':'
for i, endpoint in ipairs(A.endpoints) do
  local waiting = KEYS[FIRST_ENDPOINT + i - 1]
  for _, lease in ipairs(redis.call('ZRANGE', waiting, 0, -1)) do
    if string.sub(lease, 1, #prefix) == prefix then
      local n = string.sub(lease, #prefix + 1)
      local shard = load_shard(SHARDS, n)
      redis.call('ZREM', waiting, lease)
      if shard and (shard.state == 'claimed' or shard.state == 'submitted') then
        jobs[#jobs + 1] = {endpoint = endpoint, job = shard.job or ''}
        settle_without_output(BATCH, SHARDS, metrics[shard.model], n, shard, reason, '')
      end
    end
  end
end
local ended = end_if_complete(A.id, BATCH, OPEN, METRICS_BATCHES)
if not ended and NOW >= number(BATCH, 'expires_at') then
  -- Its running shards have yet to hear of it. Meanwhile it makes room for the next batches that are due.
  redis.call('ZADD', OPEN, 'XX', NOW + LOOK_AGAIN_MS, A.id)
end
return reply({verdict = 'stopped', jobs = jobs})
