-- A part of a batch to come. "reserve", before its payloads are stored, agrees on the upload's nonce and fixes what the part
-- is: another body never overwrites it. "confirm", after that, makes it one that a batch can be made of.
-- An upload ends by itself a window after its first part, or with the batch that was made of it.
-- KEYS: upload
-- A: step ("reserve"|"confirm"), part, nonce, and of a reserve: hash, requests, bytes, plan: json, options, max_requests,
-- max_bytes, window_ms
-- -> {verdict: "reserved"|"stored"|"other_body"|"other_options"|"too_many"|"too_large"|"closed"|"gone", nonce, id: the batch
--     that was made of it, if any}
local UPLOAD = KEYS[1]
local name = 'part:' .. A.part

local function answer(verdict)
  return reply({verdict = verdict, nonce = field(UPLOAD, 'nonce') or '', id = field(UPLOAD, 'id') or ''})
end

local known = field(UPLOAD, name)
local part = known and cjson.decode(known)
if A.step == 'confirm' then
  -- Another upload of the same key may have begun meanwhile.
  if not part or field(UPLOAD, 'nonce') ~= A.nonce then return answer('gone') end
  if not part.stored and field(UPLOAD, 'id') then return answer('closed') end
  part.stored = true
  redis.call('HSET', UPLOAD, name, cjson.encode(part))
  return answer('stored')
end

local options = field(UPLOAD, 'options')
if options and options ~= A.options then return answer('other_options') end
if part then
  if part.hash ~= A.hash then return answer('other_body') end
  if part.stored then return answer('stored') end
  -- The same requests cut otherwise, by a process with other settings: their payloads must not be mixed.
  return answer(part.plan == A.plan and 'reserved' or 'other_body')
end
if field(UPLOAD, 'id') then return answer('closed') end
if number(UPLOAD, 'requests') + A.requests > A.max_requests then return answer('too_many') end
if number(UPLOAD, 'bytes') + A.bytes > A.max_bytes then return answer('too_large') end

redis.call('HINCRBY', UPLOAD, 'requests', A.requests)
redis.call('HINCRBY', UPLOAD, 'bytes', A.bytes)
redis.call('HSET', UPLOAD, name, cjson.encode({hash = A.hash, plan = A.plan, stored = false}))
if not options then
  redis.call('HSET', UPLOAD, 'nonce', A.nonce, 'options', A.options)
  redis.call('PEXPIRE', UPLOAD, A.window_ms)
end
return answer('reserved')
