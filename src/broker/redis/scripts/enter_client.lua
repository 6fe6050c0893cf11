-- Enters a connection on a channel under a lease, or has it go if nothing is to be seen of it, and tells the channel
-- where connections or users are told of each other.
local clients, users = unpack(KEYS)
local lease, client, seen, user, connections, told_of, topic, message, ttl, publish = unpack(ARGV)

local field = lease .. '/' .. client
local turn
if seen == '' then
  turn = redis.call('HDEL', clients, field) == 1
else
  turn = redis.call('HSET', clients, field, seen) == 1
end
local user_turn = note(users, user, lease, connections)
if told_of == 'user' then turn = user_turn end
if told_of ~= 'off' and turn then redis.call(publish, topic, message) end
redis.call('PEXPIRE', clients, ttl)
redis.call('PEXPIRE', users, ttl)
return turn and 1 or 0
