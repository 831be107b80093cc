-- The one read of a poll: a batch's hash, and (at most once per throttle over all processes) what needs repair:
-- some webhook hints, the oldest overdue leases of any batch on any endpoint, expired batches, models to feed, and ended
-- batches whose callbacks are due, which nobody else is given for a while.
-- KEYS: batch (or tick), tick, open, endpoints, callbacks, inbox:0..7, then waiting, running, rest per endpoint, then queue and
-- delayed per model
-- A: read_batch, throttle_ms, force, hints, leases, callbacks, callback_lease_ms, endpoints [{id, url, model}],
-- models [..]
-- -> {batch: {..}|null, work: null | {hints, leases [{endpoint, lease}], expired, models, callbacks,
--     endpoints {id: json}}}
local BATCH, TICK, OPEN, ENDPOINTS, CALLBACKS = unpack(KEYS, 1, 5)
local FIRST_INBOX, INBOXES = 6, 8
local FIRST_ENDPOINT = FIRST_INBOX + INBOXES
local FIRST_MODEL = FIRST_ENDPOINT + 3 * #A.endpoints
local HINT_MAX_BYTES = 65536
local FLOOD_BYTES = 1048576
local INBOX_MAX_HINTS = 10000

local batch = cjson.null
if A.read_batch and not is_gone(BATCH) then
  batch = {}
  local flat = redis.call('HGETALL', BATCH)
  for i = 1, #flat, 2 do batch[flat[i]] = flat[i + 1] end
end
if not redis.call('SET', TICK, '1', 'NX', 'PX', A.throttle_ms) and not A.force then
  return reply({batch = batch, work = cjson.null, now = NOW})
end

local hints = {}
for i = FIRST_INBOX, FIRST_INBOX + INBOXES - 1 do
  local found = 0
  while found < A.hints do
    local body = redis.call('LPOP', KEYS[i])
    if not body then break end
    found = found + 1
    if #body <= HINT_MAX_BYTES then
      hints[#hints + 1] = body
    elseif #body > FLOOD_BYTES then
      -- RunPod's are small, so this is a flood. They are hints only: all of them may go.
      redis.call('UNLINK', KEYS[i])
      break
    end
  end
  if found > 0 then
    redis.call('LTRIM', KEYS[i], 0, INBOX_MAX_HINTS - 1)
    redis.call('PEXPIRE', KEYS[i], DAY_MS)
  end
end

local leases, feedable = {}, {}
for i, endpoint in ipairs(A.endpoints) do
  local first = FIRST_ENDPOINT + 3 * (i - 1)
  for j = first, first + 1 do
    for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[j], '-inf', NOW, 'LIMIT', 0, A.leases)) do
      leases[#leases + 1] = {endpoint = endpoint.id, lease = lease}
    end
  end
  if redis.call('EXISTS', KEYS[first + 2]) == 0 then feedable[endpoint.model] = true end
  redis.call('HSETNX', ENDPOINTS, endpoint.id, cjson.encode(endpoint))
end
redis.call('PEXPIRE', ENDPOINTS, 60 * DAY_MS)

local models = {}
for i, model in ipairs(A.models) do
  local queue, delayed = KEYS[FIRST_MODEL + 2 * (i - 1)], KEYS[FIRST_MODEL + 2 * (i - 1) + 1]
  local due = redis.call('ZCARD', queue) > 0 or redis.call('ZCOUNT', delayed, '-inf', NOW) > 0
  if due and feedable[model] then models[#models + 1] = model end
end

local callbacks = redis.call('ZRANGEBYSCORE', CALLBACKS, '-inf', NOW, 'LIMIT', 0, A.callbacks)
for _, id in ipairs(callbacks) do redis.call('ZADD', CALLBACKS, NOW + A.callback_lease_ms, id) end

local endpoints = {}
local flat = redis.call('HGETALL', ENDPOINTS)
for i = 1, #flat, 2 do endpoints[flat[i]] = flat[i + 1] end
return reply({batch = batch, now = NOW, work = {
  hints = hints, leases = leases, models = models, endpoints = endpoints, callbacks = callbacks,
  expired = redis.call('ZRANGEBYSCORE', OPEN, '-inf', NOW, 'LIMIT', 0, A.leases),
}})
