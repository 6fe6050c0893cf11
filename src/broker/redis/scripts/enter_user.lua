-- Enters a user under a lease, or has it go. Nothing is entered under a lease that is not there: nobody would clear
-- it away. Says whether the user came with it or went, and how many are present then.
local users, users_of_lease, leases = unpack(KEYS)
local lease, user, value = unpack(ARGV)

if value ~= '' and not redis.call('ZSCORE', leases, lease) then
  return redis.error_reply('NOLEASE the lease of the node has ended')
end
local turn = note(users, user, lease, value)
redis.call(value ~= '' and 'SADD' or 'SREM', users_of_lease, user)
return { turn and 1 or 0, redis.call('HLEN', users) }
