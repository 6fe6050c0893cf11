-- Renews a lease, and tells which others there are. One that must be held and is gone is not renewed; one that has
-- ended but that nobody clears away yet is as good as before: all end while the server is away.
local leases, infos, epoch, users, claim = unpack(KEYS)
local lease, info, must_be_held, ttl, new_epoch = unpack(ARGV)

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', epoch, new_epoch, 'NX')
local ends = redis.call('ZSCORE', leases, lease)
local renewed = 1
if must_be_held == '1' and (not ends or redis.call('EXISTS', claim) == 1) then
  renewed = 0
else
  redis.call('ZADD', leases, now + ttl, lease)
  redis.call('HSET', infos, lease, info)
end
local alive = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', leases, '(' .. now, '+inf')) do
  alive[#alive + 1] = { name, redis.call('HGET', infos, name) or '{}' }
end
local ended = redis.call('ZRANGEBYSCORE', leases, '-inf', now)
return { renewed, redis.call('GET', epoch), alive, ended, redis.call('HLEN', users) }
