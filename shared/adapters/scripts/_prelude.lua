-- Common to every script: the clock, records and the end of a batch. Put before each script's own text at load.
-- ARGV[1] is a clock offset in ms (0 outside tests), ARGV[2] the arguments as JSON, ARGV[3] a bulk text if any.
-- A script replies JSON. Every script changes nothing where the batch's hash is absent or marked deleted.
local A = cjson.decode(ARGV[2])
local clock = redis.call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[1])
local DAY_MS = 86400000
local LATENCY_EDGES_S = {10, 30, 60, 120, 300, 600, 1800, 3600, 21600, 86400}

local function reply(value)
  return cjson.encode(value)
end

local function is_gone(batch)
  local found = redis.call('HMGET', batch, 'status', 'deleted')
  return not found[1] or found[2]
end

local function field(batch, name)
  return redis.call('HGET', batch, name)
end

local function number(batch, name)
  return tonumber(redis.call('HGET', batch, name) or 0) or 0
end

local function load_shard(shards, n)
  local text = redis.call('HGET', shards, n)
  return text and cjson.decode(text)
end

local function save_shard(shards, n, shard)
  redis.call('HSET', shards, n, cjson.encode(shard))
end

-- A shard runs alone in its engine once it was suspected twice, and so does what it was split into.
local MAX_SUSPICIONS = 2
local function must_run_alone(shard)
  return shard.root ~= nil or (shard.suspicions or 0) >= MAX_SUSPICIONS
end

-- Whether the deaths of an endpoint's workers can be its shards' fault: not if it never settled one, nor after more
-- than these in a row.
local BELIEVED_DEATHS = 3
local function is_trusted(deaths, proof)
  local count = redis.call('SCARD', deaths)
  return count == 0 or (count <= BELIEVED_DEATHS and redis.call('EXISTS', proof) == 1)
end

local function note_proof(rest, deaths, proof)
  redis.call('SET', proof, '1', 'PX', DAY_MS)
  redis.call('DEL', deaths)
  if redis.call('GET', rest) == 'deaths' then redis.call('DEL', rest) end
end

local function touch(batch)
  redis.call('HSET', batch, 'updated_at', NOW)
end

-- Phases only ever advance.
local PHASES = {collected = 1, submitted = 2, processing = 3, ended = 4}
local function advance(batch, phase)
  if PHASES[phase] > PHASES[field(batch, 'status')] then
    redis.call('HSET', batch, 'status', phase, 'updated_at', NOW)
  end
end

-- Live progress of the shard's running epoch; (0, 0) takes it back.
local function set_live(batch, shard, succeeded, errored)
  local ds, de = succeeded - (shard.live_succeeded or 0), errored - (shard.live_errored or 0)
  if ds ~= 0 then redis.call('HINCRBY', batch, 'live_succeeded', ds) end
  if de ~= 0 then redis.call('HINCRBY', batch, 'live_errored', de) end
  if ds ~= 0 or de ~= 0 then touch(batch) end
  shard.live_succeeded, shard.live_errored = succeeded, errored
end

local function count(batch, metrics, outcome, requests)
  if requests > 0 then
    redis.call('HINCRBY', batch, outcome, requests)
    redis.call('HINCRBY', metrics, outcome, requests)
    redis.call('PEXPIRE', metrics, 30 * DAY_MS)
  end
end

-- A batch ends when its settled requests equal its total.
local function end_if_complete(id, batch, open, metrics_batches)
  local v = redis.call('HMGET', batch, 'total', 'succeeded', 'errored', 'canceled', 'expired', 'status', 'created_at')
  local settled = tonumber(v[2]) + tonumber(v[3]) + tonumber(v[4]) + tonumber(v[5])
  touch(batch)
  if settled < tonumber(v[1]) or v[6] == 'ended' then return v[6] == 'ended' end
  redis.call('HSET', batch, 'status', 'ended', 'ended_at', NOW)
  redis.call('ZREM', open, id)
  local seconds = (NOW - tonumber(v[7])) / 1000
  for _, edge in ipairs(LATENCY_EDGES_S) do
    if seconds <= edge then redis.call('HINCRBY', metrics_batches, 'le:' .. edge, 1) end
  end
  redis.call('HINCRBY', metrics_batches, 'count', 1)
  redis.call('HINCRBYFLOAT', metrics_batches, 'sum', seconds)
  redis.call('PEXPIRE', metrics_batches, 30 * DAY_MS)
  return true
end

-- Settles a whole shard that has no output: canceled, expired or errored.
local function settle_without_output(batch, shards, metrics, n, shard, outcome, message)
  set_live(batch, shard, 0, 0)
  shard.state, shard.outcome, shard.error = 'settled', outcome, message
  save_shard(shards, n, shard)
  count(batch, metrics, outcome, shard.requests)
end

-- `shard` is nil where nobody claimed it; one that was split stands for its halves.
local function is_over(shard)
  return not shard or shard.state == 'queued' or shard.state == 'settled' or shard.state == 'split'
end

local function retries(batch, model)
  local text = field(batch, 'retry:' .. model)
  return text and cjson.decode(text) or {}
end

local function save_retries(batch, model, list)
  if #list == 0 then
    redis.call('HDEL', batch, 'retry:' .. model)
  else
    redis.call('HSET', batch, 'retry:' .. model, cjson.encode(list))
  end
end
