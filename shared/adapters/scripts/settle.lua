-- The end of a shard with its output: adds its counts once, fenced by the epoch. First wins; settled never changes.
-- A small output travels along as ARGV[3]; a larger one was written under its epoch's key before.
-- KEYS: batch, shards, running, open, metrics:batches, metrics:{model}, output, rest, deaths, proof,
-- callbacks
-- A: id, shard, epoch, counts {succeeded, errored, canceled, expired}, refused (of the errored those that no engine saw),
-- input_tokens, output_tokens, gpu_ms
-- -> {verdict: "settled"|"lost"|"gone", ended}
local BATCH, SHARDS, RUNNING, OPEN, METRICS_BATCHES, METRICS, OUTPUT, REST, DEATHS, PROOF = unpack(KEYS, 1, 10)
local CALLBACKS = KEYS[11]
local RATE_MINUTES = 16

if is_gone(BATCH) then return reply({verdict = 'gone', ended = false}) end
local shard = load_shard(SHARDS, A.shard)
if not shard or shard.epoch ~= A.epoch then return reply({verdict = 'lost', ended = false}) end
if shard.state == 'settled' and not shard.outcome then
  return reply({verdict = 'settled', ended = field(BATCH, 'status') == 'ended'})
end
if shard.state ~= 'running' then return reply({verdict = 'lost', ended = false}) end

if ARGV[3] ~= '' then
  redis.call('SET', OUTPUT, ARGV[3])
  redis.call('PEXPIREAT', OUTPUT, number(BATCH, 'keep_until'))
end
set_live(BATCH, shard, 0, 0)
shard.state, shard.job, shard.worker = 'settled', nil, nil
save_shard(SHARDS, A.shard, shard)
redis.call('ZREM', RUNNING, A.id .. ':' .. A.shard)
if A.counts.succeeded + A.counts.errored > A.refused then note_proof(REST, DEATHS, PROOF) end

local done = 0
for _, outcome in ipairs({'succeeded', 'errored', 'canceled', 'expired'}) do
  count(BATCH, METRICS, outcome, A.counts[outcome])
  done = done + A.counts[outcome]
end
for _, name in ipairs({'input_tokens', 'output_tokens', 'gpu_ms'}) do
  redis.call('HINCRBY', BATCH, name, A[name])
  redis.call('HINCRBY', METRICS, name, A[name])
end

-- The last minutes in a ring, for rates: "minute requests input output".
local minute = math.floor(NOW / 60000)
local slot = 'minute:' .. minute % RATE_MINUTES
local at, r, i, o = string.match(redis.call('HGET', METRICS, slot) or '', '(%d+) (%d+) (%d+) (%d+)')
if tonumber(at) ~= minute then r, i, o = 0, 0, 0 end
redis.call('HSET', METRICS, slot, string.format('%d %d %d %d', minute, r + done, i + A.input_tokens,
  o + A.output_tokens))
redis.call('PEXPIRE', METRICS, 30 * DAY_MS)
return reply({verdict = 'settled', ended = end_if_complete(A.id, BATCH, OPEN, METRICS_BATCHES, CALLBACKS)})
