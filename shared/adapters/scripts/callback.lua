-- Notes what came of an attempt to tell a batch's end. An attempt noted before changes nothing, nor does a failure after
-- the delivery.
-- KEYS: batch, callbacks
-- A: id, attempt (its number), state ("pending"|"delivered"|"failed"), fault, after_ms
-- -> "pending"|"delivered"|"failed"|"gone"
local BATCH, CALLBACKS = KEYS[1], KEYS[2]
if is_gone(BATCH) then
  redis.call('ZREM', CALLBACKS, A.id)
  return reply('gone')
end
local known = field(BATCH, 'callback_state') or 'pending'
local is_late = A.state ~= 'delivered' and A.attempt <= number(BATCH, 'callback_attempts')
if known == 'delivered' or is_late then return reply(known) end

local state, due = A.state, NOW + A.after_ms
if state == 'pending' and due >= number(BATCH, 'keep_until') then state = 'failed' end
redis.call('HSET', BATCH, 'callback_state', state, 'callback_attempts', A.attempt, 'callback_fault', A.fault)
if state == 'pending' then
  redis.call('ZADD', CALLBACKS, due, A.id)
  redis.call('PEXPIRE', CALLBACKS, 60 * DAY_MS)
else
  redis.call('ZREM', CALLBACKS, A.id)
end
return reply(state)
