-- Reads a stream from an offset on, with what stands there itself. A stream that has gone back behind what a node
-- has of it, as after a failover to a server that lacks its end, is another one from then on: its offsets will be
-- given again.
local meta, stream = unpack(KEYS)
local from_offset, from_epoch, new_epoch, meta_ttl, unused_ttl, most = unpack(ARGV)

local stands = redis.call('HMGET', meta, 'epoch', 'offset')
local epoch, offset = stands[1], stands[2] or '0'
local went_back = epoch and epoch == from_epoch and tonumber(offset) < tonumber(from_offset)
if not epoch then redis.call('DEL', stream) end
if not epoch or went_back then
  epoch = new_epoch
  redis.call('HSET', meta, 'epoch', epoch, 'offset', offset)
end
redis.pcall('PEXPIRE', meta, offset == '0' and unused_ttl or meta_ttl)
local from = '-'
if epoch == from_epoch and from_offset ~= '0' then from = from_offset .. '-0' end
local time = redis.call('TIME')
time = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return { offset .. ':' .. epoch, time, redis.call('XRANGE', stream, from, '+', 'COUNT', most) }
