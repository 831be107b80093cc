-- A worker begins a shard: mints the epoch that fences everything it does from here on.
-- The same job again (RunPod delivers a lost worker's job twice) takes over at once; another job of the same attempt
-- only where the beat is stale.
-- KEYS, A: see _losses; beside them attempt, job, worker (a name of its process), call (a nonce of this call),
-- lease_ms, stale_ms, message, proven (its engine has just answered a canary)
-- -> {verdict: "run"|"gone"|"settled"|"stale"|"busy"|"canceled"|"expired"|"errored", epoch, nonce, requests, head,
--     root, offset: where its input is, keep_ms: how long its batch is kept}
if is_gone(BATCH) then return reply({verdict = 'gone'}) end
local shard = load_shard(SHARDS, A.shard)
if shard and shard.state == 'settled' and shard.attempt == A.attempt then return reply({verdict = 'settled'}) end
if is_over(shard) or shard.attempt ~= A.attempt then return reply({verdict = 'stale'}) end
local function run()
  return reply({verdict = 'run', epoch = shard.epoch, nonce = field(BATCH, 'nonce'), requests = shard.requests,
    head = field(BATCH, 'member'), root = shard.root or A.shard, offset = shard.offset or 0,
    keep_ms = math.max(0, number(BATCH, 'keep_until') - NOW)})
end
-- The same call again, after a lost reply, is no takeover.
if shard.state == 'running' and shard.call == A.call and not field(BATCH, 'stop') then return run() end
if A.proven and shard.call ~= A.call then note_proof(REST, DEATHS, PROOF) end
if shard.state == 'running' and shard.job ~= A.job and NOW - shard.beat < A.stale_ms then
  return reply({verdict = 'busy'})
end
-- Taking over means that the last epoch died. This very call's own did not: its batch was stopped meanwhile.
local verdict = shard.state == 'running' and shard.call ~= A.call and bury(shard) or 'queued'
local outcome = field(BATCH, 'stop') or (verdict == 'errored' and verdict)
if outcome then
  settle_lost(shard, outcome)
  return reply({verdict = outcome})
end
if verdict == 'split' or (must_run_alone(shard) and not shard.alone) then
  -- Not by this job: it was submitted to run in company, or for what is two shards now.
  put_back(shard, verdict)
  return reply({verdict = 'stale'})
end

set_live(BATCH, shard, 0, 0)
shard.state, shard.job, shard.worker, shard.call = 'running', A.job, A.worker, A.call
shard.epoch, shard.beat, shard.since = shard.epoch + 1, NOW, NOW
save_shard(SHARDS, A.shard, shard)
redis.call('ZREM', WAITING, member)
redis.call('ZADD', RUNNING, NOW + A.lease_ms, member)
redis.call('PEXPIRE', RUNNING, 60 * DAY_MS)
advance(BATCH, 'processing')
return run()
