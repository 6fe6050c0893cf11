-- Publishes and remembers in one step: nothing comes between a publication's position, its entry in the stream,
-- and its way to the nodes. Under an idempotency key, if there is one, only once.
local meta, stream, answer = unpack(KEYS)
local topic, body, size, stream_ttl, meta_ttl, new_epoch, answer_ttl, publish = unpack(ARGV)

if answer then
  local before = redis.call('GET', answer)
  if before then return before end
end
local position = '0:'
if tonumber(size) > 0 then
  local offset = redis.call('HINCRBY', meta, 'offset', 1)
  local epoch = redis.call('HGET', meta, 'epoch')
  if not epoch then
    epoch = new_epoch
    redis.call('HSET', meta, 'epoch', epoch)
    redis.call('DEL', stream)
  end
  offset = string.format('%.0f', offset)
  local time = redis.call('TIME')
  time = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('XADD', stream, 'MAXLEN', size, offset .. '-0', 't', time, 'b', body)
  redis.call('PEXPIRE', stream, stream_ttl)
  redis.call('PEXPIRE', meta, meta_ttl)
  position = offset .. ':' .. epoch
end
if answer then redis.call('SET', answer, position, 'PX', answer_ttl) end
redis.call(publish, topic, position .. ':' .. body)
return position
