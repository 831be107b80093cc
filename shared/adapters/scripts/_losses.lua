-- Common to start and requeue: what a worker's death means for the shard it ran, and giving a shard back.
-- KEYS of both: batch, shards, waiting, running, queue, delayed, vtime, open, metrics:batches, metrics:{model}, rest,
-- deaths, proof
-- A of both: id, shard, model, delay_ms, max_deaths, random (0..1), ...
local BATCH, SHARDS, WAITING, RUNNING, QUEUE, DELAYED, VTIME, OPEN, METRICS_BATCHES, METRICS = unpack(KEYS, 1, 10)
local REST, DEATHS, PROOF = unpack(KEYS, 11, 13)
local LONGEST_REST_MS = 600000
local member = A.id .. ':' .. A.shard

local function drop_lease()
  redis.call('ZREM', WAITING, member)
  redis.call('ZREM', RUNNING, member)
end

-- Notes a death, once for each process that died. False where the endpoint may be at fault: it rests, longer each time.
-- `nth`: which of its shard's lost attempts it is, where nobody knows the process.
local function endpoint_works(process, nth)
  local is_new = redis.call('SADD', DEATHS, process) == 1
  redis.call('PEXPIRE', DEATHS, DAY_MS)
  if is_trusted(DEATHS, PROOF) then return true end
  if is_new or nth then
    local doubled = 1000 * 2 ^ math.min((nth or redis.call('SCARD', DEATHS)) - 1, 20)
    local rest = math.ceil(math.min(LONGEST_REST_MS, doubled) * (0.5 + A.random / 2))
    if redis.call('PTTL', REST) < rest then redis.call('SET', REST, 'deaths', 'PX', rest) end
  end
  return false
end

-- What follows from the death of the worker that held the shard: "queued", "split" or "errored". A death in company is
-- a suspicion only; a death alone splits. Neither harms a shard that is not to blame. Those of a single request do, so
-- they count only where the endpoint is known to work.
local function bury(shard)
  redis.call('HINCRBY', BATCH, 'deaths', 1)
  shard.losses = (shard.losses or 0) + 1
  if shard.state ~= 'running' then
    -- Nobody knows which process met a job that was never started: for trust, all of these are one.
    endpoint_works('unstarted', shard.losses)
    return 'queued'
  end
  local is_blamed = endpoint_works(shard.worker or shard.job or '')
  if not shard.alone then
    shard.suspicions = (shard.suspicions or 0) + 1
    return 'queued'
  end
  if shard.requests > 1 then return 'split' end
  if not is_blamed then return 'queued' end
  shard.deaths = shard.deaths + 1
  return shard.deaths >= A.max_deaths and 'errored' or 'queued'
end

local function give_back(numbers)
  local list = retries(BATCH, A.model)
  -- To the end: one that dies again and again must not keep the others from their turn.
  for _, n in ipairs(numbers) do list[#list + 1] = {n, NOW + A.delay_ms} end
  save_retries(BATCH, A.model, list)
  local queued = field(BATCH, 'member')
  if A.delay_ms > 0 then
    redis.call('ZADD', DELAYED, 'LT', NOW + A.delay_ms, queued)
    redis.call('PEXPIRE', DELAYED, 60 * DAY_MS)
  else
    local v = math.max(tonumber(redis.call('GET', VTIME) or 0), number(BATCH, 'vtime:' .. A.model))
    redis.call('ZADD', QUEUE, 'NX', v, queued)
    redis.call('PEXPIRE', QUEUE, 60 * DAY_MS)
  end
end

-- Two halves in the shard's place, which keep its order and read its input. They run alone from the start.
local function split(shard)
  local first = redis.call('HINCRBY', BATCH, 'shards', 2) - 2
  local half = math.floor(shard.requests / 2)
  local offset = shard.offset or 0
  for i, requests in ipairs({half, shard.requests - half}) do
    save_shard(SHARDS, first + i - 1, {model = shard.model, state = 'queued', attempt = 0, epoch = 0,
      suspicions = shard.suspicions, deaths = 0, requests = requests, root = shard.root or A.shard,
      offset = offset + (i - 1) * half})
  end
  redis.call('HINCRBY', BATCH, 'splits', 1)
  shard.halves = {first, first + 1}
  return shard.halves
end

-- Back to the retry list as a whole, or as its halves.
local function put_back(shard, verdict)
  drop_lease()
  set_live(BATCH, shard, 0, 0)
  local numbers = verdict == 'split' and split(shard) or {A.shard}
  shard.state, shard.job, shard.worker = verdict, nil, nil
  save_shard(SHARDS, A.shard, shard)
  give_back(numbers)
end

local function settle_lost(shard, outcome)
  drop_lease()
  settle_without_output(BATCH, SHARDS, METRICS, A.shard, shard, outcome, outcome == 'errored' and A.message or '')
  end_if_complete(A.id, BATCH, OPEN, METRICS_BATCHES)
end
