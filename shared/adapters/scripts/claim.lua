-- Hands out up to `max` shards of one model to one endpoint, fairly over batches (start-time fair queueing): the batch
-- with the least virtual start time gives its next shard and moves on by cost / weight. V advances with every shard,
-- so a stream of newcomers can't starve a big batch.
-- An endpoint that refused, or whose workers die, gets one shard as a probe after its rest: after a refusal until RunPod
-- accepted it, after deaths until one was settled.
-- KEYS: queue, delayed, vtime, waiting, running, rest, failures, deaths, proof, capacity, nonce, then batch, shards and plan
-- of each of A.members
-- A: endpoint, model, max, window, claim_ms, members [queue members whose keys are declared]
-- -> {claims: [{batch, shard, attempt, requests, alone, canary, expires_at, now}], heads: [next members], room, resting_ms}
local QUEUE, DELAYED, VTIME, WAITING, RUNNING, REST, FAILURES, DEATHS, PROOF, CAPACITY, NONCE = unpack(KEYS, 1, 11)
local NEWCOMER_SHARE = 0.1
local FIRST_BATCH = 12

-- A resend after a lost reply gets what the first one got.
local before = redis.call('GET', NONCE)
if before then return before end
local resting = redis.call('PTTL', REST)
if resting > 0 then return reply({claims = {}, heads = {}, room = 0, resting_ms = resting}) end

local declared = {}
for i, member in ipairs(A.members) do
  declared[member] = {unpack(KEYS, FIRST_BATCH + 3 * (i - 1), FIRST_BATCH + 3 * i - 1)}
end
local V = tonumber(redis.call('GET', VTIME) or 0)
local window = math.max(A.window, tonumber(redis.call('GET', CAPACITY) or 0))
local waiting = redis.call('ZCARD', WAITING)
local room, most = window - waiting, A.max
local is_refusing = redis.call('EXISTS', FAILURES) == 1
if is_refusing then most = 1 end
local is_dying = not is_trusted(DEATHS, PROOF)
if is_dying then room = math.min(room, 1 - waiting - redis.call('ZCARD', RUNNING)) end

for _, member in ipairs(redis.call('ZRANGEBYSCORE', DELAYED, '-inf', NOW, 'LIMIT', 0, 16)) do
  redis.call('ZREM', DELAYED, member)
  redis.call('ZADD', QUEUE, 'NX', V, member)
  redis.call('PEXPIRE', QUEUE, 60 * DAY_MS)
end

local function size_at(sizes, cursor)
  for _, run in ipairs(sizes) do
    if cursor < run[2] then return run[1] end
    cursor = cursor - run[2]
  end
end

-- One to be retried. nil where none is due.
local function next_retry(batch, shards, plan)
  local list = retries(batch, A.model)
  for i, entry in ipairs(list) do
    if entry[2] <= NOW then
      table.remove(list, i)
      save_retries(batch, A.model, list)
      return entry[1], load_shard(shards, entry[1])
    end
  end
end

-- What this model has of a part. nil where that is nothing.
local function share_of(plan, part)
  for _, share in ipairs(cjson.decode(redis.call('HGET', plan, part)).models) do
    if share.model == A.model then return share end
  end
end

-- The one at the cursor: a part, and a shard in it. nil behind the last.
local function next_fresh(batch, shards, plan)
  local part, cursor = number(batch, 'part:' .. A.model), number(batch, 'cursor:' .. A.model)
  local parts, share = number(batch, 'parts'), nil
  while part < parts do
    share = share_of(plan, part)
    if share and cursor < share.shards then break end
    part, cursor, share = part + 1, 0, nil
  end
  redis.call('HSET', batch, 'part:' .. A.model, part, 'cursor:' .. A.model, share and cursor + 1 or 0)
  if not share then return nil end
  local requests = size_at(share.sizes, cursor)
  redis.call('HINCRBY', batch, 'handed:' .. A.model, requests)
  return share.first + cursor, {model = A.model, attempt = 0, epoch = 0, suspicions = 0, deaths = 0,
    requests = requests}
end

-- Retries come first, but not where workers die: there they may be what kills them, for ever.
local function next_shard(batch, shards, plan)
  local first, second = next_retry, next_fresh
  if is_dying then first, second = next_fresh, next_retry end
  local n, shard = first(batch, shards, plan)
  if n then return n, shard end
  return second(batch, shards, plan)
end

-- Retries that are not due yet bring their batch back when the first of them is.
local function delay_retries(batch, member)
  local due
  for _, entry in ipairs(retries(batch, A.model)) do due = math.min(due or entry[2], entry[2]) end
  if due then
    redis.call('ZADD', DELAYED, 'LT', due, member)
    redis.call('PEXPIRE', DELAYED, 60 * DAY_MS)
  end
end

local claims = {}
while room > 0 and #claims < most do
  local head = redis.call('ZRANGE', QUEUE, 0, 0, 'WITHSCORES')
  local keys = head[1] and declared[head[1]]
  if not keys then break end
  local member, start, batch, shards, plan = head[1], tonumber(head[2]), unpack(keys)
  local n, shard
  local can_go_on = not is_gone(batch) and not field(batch, 'stop') and NOW < number(batch, 'expires_at')
  if can_go_on then
    n, shard = next_shard(batch, shards, plan)
  end
  if not n then
    redis.call('ZREM', QUEUE, member)
    if can_go_on then delay_retries(batch, member) end
  else
    local id = string.sub(member, 17)
    shard.state, shard.attempt, shard.endpoint, shard.since = 'claimed', shard.attempt + 1, A.endpoint, NOW
    shard.job, shard.alone = nil, must_run_alone(shard)
    redis.call('HINCRBY', batch, 'attempts', 1)
    save_shard(shards, n, shard)
    redis.call('PEXPIREAT', shards, number(batch, 'keep_until'))
    redis.call('ZADD', WAITING, NOW + A.claim_ms, id .. ':' .. n)
    local finish = start + shard.requests / tonumber(field(batch, 'weight'))
    redis.call('HSET', batch, 'vtime:' .. A.model, finish)
    redis.call('ZADD', QUEUE, finish, member)
    V = math.max(V + NEWCOMER_SHARE * shard.requests, start)
    room = room - 1
    claims[#claims + 1] = {batch = id, shard = n, attempt = shard.attempt, requests = shard.requests,
      alone = shard.alone,
      -- Nor may a proof that an image gave which is gone by now decide: one more death may be a request's last.
      canary = shard.alone and shard.requests == 1 and (is_dying or shard.deaths > 0),
      expires_at = number(batch, 'expires_at'), now = NOW}
  end
end

if #claims > 0 then
  redis.call('SET', VTIME, V, 'PX', 60 * DAY_MS)
  redis.call('PEXPIRE', WAITING, 60 * DAY_MS)
  -- Nobody else probes meanwhile.
  if is_refusing then redis.call('SET', REST, 'probe', 'PX', A.claim_ms) end
end
local answer = reply({claims = claims, heads = redis.call('ZRANGE', QUEUE, 0, 7), room = room, resting_ms = 0})
if #claims > 0 then redis.call('SET', NONCE, answer, 'PX', 60000) end
return answer
