-- Gives a shard back to its batch's retry list: a refused submission, a lost worker, or a worker that must go.
-- Compares what the caller saw, so that of two repairs one wins and a shard that moved on is left alone.
-- In a stopped batch this settles the shard instead; so does the last death of a request alone.
-- KEYS, A: see _losses; beside them state, attempt, epoch (-1: any), beat (-1: any), blame (its worker died), message
-- -> {verdict: "queued"|"split"|"errored"|"canceled"|"expired"|"changed"|"gone"}
if is_gone(BATCH) then return reply({verdict = 'gone'}) end
local shard = load_shard(SHARDS, A.shard)
local same = not is_over(shard) and shard.state == A.state and shard.attempt == A.attempt
  and (A.epoch < 0 or shard.epoch == A.epoch)
if not same or (A.beat >= 0 and (shard.beat or 0) ~= A.beat) then return reply({verdict = 'changed'}) end

local verdict = A.blame and bury(shard) or 'queued'
local outcome = field(BATCH, 'stop') or (verdict == 'errored' and verdict)
if outcome then
  settle_lost(shard, outcome)
  return reply({verdict = outcome})
end
put_back(shard, verdict)
return reply({verdict = verdict})
