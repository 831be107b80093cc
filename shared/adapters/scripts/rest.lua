-- Rests an endpoint that refused a job: nobody submits to it until then. Each failure in a row doubles the rest.
-- KEYS: rest, failures
-- A: retry_after_ms (0: none named), random (0..1), cap_ms
-- -> rest in ms
local REST, FAILURES = KEYS[1], KEYS[2]
-- A wish for longer is a mistake somewhere: asking again now and then costs nothing.
local RETRY_AFTER_CAP_MS = 600000
local failures = redis.call('INCR', FAILURES)
local doubled = math.min(A.cap_ms, 1000 * 2 ^ math.min(failures - 1, 20)) * (0.5 + A.random / 2)
local rest = math.ceil(math.max(math.min(A.retry_after_ms, RETRY_AFTER_CAP_MS), doubled))
-- Known for longer than the rest, so that a probe follows it.
redis.call('PEXPIRE', FAILURES, rest + 10 * A.cap_ms)
if redis.call('GET', REST) == 'probe' or redis.call('PTTL', REST) < rest then
  redis.call('SET', REST, 'refused', 'PX', rest)
end
return reply(rest)
