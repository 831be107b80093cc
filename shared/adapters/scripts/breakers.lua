-- How the circuit breaker of each endpoint stands.
-- KEYS: rest, failures, deaths, proof per endpoint
-- A: endpoints [ids]
-- -> {id: {state: "closed"|"open"|"half_open", cause: ""|"refused"|"deaths", resting_ms, refusals, deaths}}
local answer = {}
for i, endpoint in ipairs(A.endpoints) do
  local rest, failures, deaths, proof = unpack(KEYS, 4 * i - 3, 4 * i)
  local refusals = tonumber(redis.call('GET', failures) or 0)
  local cause = not is_trusted(deaths, proof) and 'deaths' or refusals > 0 and 'refused' or ''
  local resting = math.max(0, redis.call('PTTL', rest))
  local is_probed = redis.call('GET', rest) == 'probe'
  local state = cause == '' and 'closed' or resting > 0 and not is_probed and 'open' or 'half_open'
  answer[endpoint] = {state = state, cause = cause, resting_ms = is_probed and 0 or resting, refusals = refusals,
    deaths = redis.call('SCARD', deaths)}
end
return reply(answer)
