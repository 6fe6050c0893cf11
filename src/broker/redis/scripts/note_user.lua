-- Notes what stands of a user under a lease, or that nothing does; says whether the user came with it, or went.
local function note(key, user, lease, value)
  local before = redis.call('HGET', key, user)
  local record = before and cjson.decode(before) or {}
  record[lease] = value ~= '' and value or nil
  local after = next(record)
  if after then
    redis.call('HSET', key, user, cjson.encode(record))
  else
    redis.call('HDEL', key, user)
  end
  return (before == false) == (after ~= nil)
end
