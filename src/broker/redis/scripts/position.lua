-- Says where a stream stands, and keeps that, and who is on its channel, for longer.
local meta, clients, users = unpack(KEYS)
local meta_ttl, unused_ttl, presence_ttl = unpack(ARGV)

local stands = redis.call('HMGET', meta, 'epoch', 'offset')
local offset = stands[2] or '0'
redis.pcall('PEXPIRE', meta, offset == '0' and unused_ttl or meta_ttl)
redis.pcall('PEXPIRE', clients, presence_ttl)
redis.pcall('PEXPIRE', users, presence_ttl)
return offset .. ':' .. (stands[1] or '')
