//! What must happen in one step, as scripts: nothing comes between a publication's place, its entry in the
//! stream, and its way to the nodes.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisError, Value};
use bytes::Bytes;

use super::servers::Routed;
use super::{Names, Remember};
use crate::broker::engine::{
    Entry, KEY_TTL, PLACE_TTL, Read, Refusal, Stream, Watched, new_epoch, place_ttl,
};
use crate::channel::history::Position;

/// What is done in one step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Script {
    Publish,
    Read,
    Beat,
    Roll,
    Enter,
    Place,
}

/// The scripts as the server knows them.
#[derive(Clone, Debug)]
pub(super) struct Scripts([String; TEXTS.len()]);

impl Scripts {
    /// Brings them to the server.
    pub(super) async fn load(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        let mut loading = ::redis::pipe();
        for text in TEXTS {
            loading.cmd("SCRIPT").arg("LOAD").arg(text);
        }
        Ok(Self(loading.query_async(connection).await?))
    }

    /// A call of one on keys, all of one slot.
    pub(super) fn call(&self, script: Script, keys: &[String]) -> Routed {
        let slot_of = keys.first().map_or("", String::as_str);
        Routed::new(slot_of, "EVALSHA").arg(&self.0[script as usize]).arg(keys.len()).arg(keys)
    }

    /// Publishes by that word and topic, and remembers.
    pub(super) fn publish(
        &self,
        names: &Names,
        (word, topic): (&str, String),
        body: &Bytes,
        Remember { channel, window, key }: &Remember,
    ) -> Routed {
        let mut keys = vec![names.key(channel, "meta"), names.key(channel, "stream")];
        keys.extend(key.as_ref().map(|key| names.key(channel, "key:") + key));
        let size = if window.is_open() { window.size } else { 0 };
        let call = self.call(Script::Publish, &keys).arg(topic).arg(&body[..]).arg(size);
        let call = call.arg(millis(window.ttl)).arg(millis(place_ttl(window.ttl)));
        call.arg(&*new_epoch()).arg(millis(KEY_TTL)).arg(word)
    }

    /// Reads a stream.
    pub(super) fn read(&self, names: &Names, Read { channel, from, ttl }: &Read) -> Routed {
        let keys = [names.key(channel, "meta"), names.key(channel, "stream")];
        let Position { offset, epoch } = from.clone().unwrap_or_default();
        let call = self.call(Script::Read, &keys).arg(offset).arg(&*epoch).arg(&*new_epoch());
        call.arg(millis(place_ttl(*ttl))).arg(millis(UNUSED_TTL)).arg(READ_MAX)
    }

    /// Asks where a stream stands.
    pub(super) fn place(&self, names: &Names, Watched { channel, ttl }: &Watched) -> Routed {
        let keys = ["meta", "present", "users"].map(|what| names.key(channel, what));
        let call = self.call(Script::Place, &keys);
        call.arg(millis(place_ttl(*ttl))).arg(millis(UNUSED_TTL)).arg(millis(PLACE_TTL))
    }
}

/// The place that a publish was given.
pub(super) fn place(answer: Value) -> Result<Position, Refusal> {
    match answer {
        // The number of nodes that heard it, as nothing remembers it.
        Value::Int(_) => Ok(Position::default()),
        Value::BulkString(place) => position(&place).ok_or_else(strange),
        _ => Err(strange()),
    }
}

/// What was read of a stream.
pub(super) fn stream(answer: Value) -> Result<Stream, Refusal> {
    let read = || {
        let [place, now, entries] = array(answer)?;
        let position = position(&bulk(place)?)?;
        let now: u64 = number(&bulk(now)?)?;
        let Value::Array(entries) = entries else { return None };
        let entries: Option<_> = entries.into_iter().map(|it| entry(it, now)).collect();
        Some(Stream { position, entries: entries? })
    };
    read().ok_or_else(strange)
}

fn entry(value: Value, now: u64) -> Option<Entry> {
    let [id, fields] = array(value)?;
    let id = bulk(id)?;
    let offset = number(id.strip_suffix(b"-0")?)?;
    let [_, time, _, body] = array(fields)?;
    let age = now.saturating_sub(number(&bulk(time)?)?);
    Some(Entry { offset, body: bulk(body)?.into(), age: Duration::from_millis(age) })
}

/// `<offset>:<epoch>`.
fn position(place: &[u8]) -> Option<Position> {
    let (offset, epoch) = std::str::from_utf8(place).ok()?.split_once(':')?;
    Some(Position { offset: offset.parse().ok()?, epoch: epoch.into() })
}

pub(super) fn array<const N: usize>(value: Value) -> Option<[Value; N]> {
    match value {
        Value::Array(values) => values.try_into().ok(),
        _ => None,
    }
}

pub(super) fn bulk(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(super) fn strange() -> Refusal {
    Refusal::new("its answer is not what the script gives; is another program's key there?")
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

/// Keys: meta, stream and perhaps that of an idempotency key. Arguments: topic, body, size, ttl of the
/// stream and of its meta, the epoch of a stream that begins, ttl of the key, the word that publishes.
const PUBLISH: &str = r"
if KEYS[3] then
  local before = redis.call('GET', KEYS[3])
  if before then return before end
end
local place = '0:'
local size = tonumber(ARGV[3])
if size > 0 then
  local offset = redis.call('HINCRBY', KEYS[1], 'offset', 1)
  local epoch = redis.call('HGET', KEYS[1], 'epoch')
  if not epoch then
    epoch = ARGV[6]
    redis.call('HSET', KEYS[1], 'epoch', epoch)
    redis.call('DEL', KEYS[2])
  end
  offset = string.format('%.0f', offset)
  local time = redis.call('TIME')
  time = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('XADD', KEYS[2], 'MAXLEN', size, offset .. '-0', 't', time, 'b', ARGV[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  place = offset .. ':' .. epoch
end
if KEYS[3] then redis.call('SET', KEYS[3], place, 'PX', ARGV[7]) end
redis.call(ARGV[8], ARGV[1], place .. ':' .. ARGV[2])
return place
";

/// Keys: meta, stream. Arguments: offset and epoch from where to read, the epoch of a stream that begins,
/// ttl of its meta, and of one that nothing was published to, how much is read. What is read begins with what stands there itself. A stream that has gone back behind what a node has of it, as after a failover to a
/// server that lacks its end, is another one from then on: its offsets will be given again.
const READ: &str = r"
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'offset')
local epoch, offset = meta[1], meta[2] or '0'
local went_back = epoch and epoch == ARGV[2] and tonumber(offset) < tonumber(ARGV[1])
if not epoch then redis.call('DEL', KEYS[2]) end
if not epoch or went_back then
  epoch = ARGV[3]
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', offset)
end
redis.pcall('PEXPIRE', KEYS[1], offset == '0' and ARGV[5] or ARGV[4])
local from = '-'
if epoch == ARGV[2] and ARGV[1] ~= '0' then from = ARGV[1] .. '-0' end
local time = redis.call('TIME')
time = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return { offset .. ':' .. epoch, time, redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', ARGV[6]) }
";

/// Keys: leases, what nodes say of themselves, the epoch of it all, users, whether the lease is being cleared
/// away. Arguments: a
/// lease, what its node says, whether it must be held, its ttl, an epoch if there is none.
const BEAT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[3], ARGV[5], 'NX')
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
local renewed = 1
-- One that has ended but that nobody clears away yet is as good as before: all end while the server is away.
if ARGV[3] == '1' and (not ends or redis.call('EXISTS', KEYS[5]) == 1) then
  renewed = 0
else
  redis.call('ZADD', KEYS[1], now + ARGV[4], ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
local nodes = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  nodes[#nodes + 1] = { name, redis.call('HGET', KEYS[2], name) or '{}' }
end
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)
return { renewed, redis.call('GET', KEYS[3]), nodes, dead, redis.call('HLEN', KEYS[4]) }
";

/// Notes what stands of a user under a lease, or that nothing does; says whether the user came with it, or
/// went.
macro_rules! note_user {
    () => {
        r"
local function note(key, user, lease, value)
  local before = redis.call('HGET', key, user)
  local entry = before and cjson.decode(before) or {}
  entry[lease] = value ~= '' and value or nil
  local after = next(entry)
  if after then
    redis.call('HSET', key, user, cjson.encode(entry))
  else
    redis.call('HDEL', key, user)
  end
  return (before == false) == (after ~= nil)
end
"
    };
}

/// Keys: users, the users of a lease, leases. Arguments: a lease, a user, what stands of it there or nothing.
/// Nothing is entered under a lease that is not there: nobody would clear it away. The answer says whether
/// the user came with it or went, and how many are present then.
const ROLL: &str = concat!(
    note_user!(),
    r"
local lease, user, value = ARGV[1], ARGV[2], ARGV[3]
if value ~= '' and not redis.call('ZSCORE', KEYS[3], lease) then
  return redis.error_reply('NOLEASE the lease of the node has ended')
end
local turn = note(KEYS[1], user, lease, value)
redis.call(value ~= '' and 'SADD' or 'SREM', KEYS[2], user)
return { turn and 1 or 0, redis.call('HLEN', KEYS[1]) }
"
);

/// Keys of a channel: connections by lease, users. Arguments: a lease, a connection, what others see of it
/// or nothing if it left, its user, that user's connections there or nothing, what is told (off, client, user), by
/// which topic, as what, for how long it is kept, the word that publishes.
const ENTER: &str = concat!(
    note_user!(),
    r"
local lease, client, user, mode = ARGV[1], ARGV[1] .. '/' .. ARGV[2], ARGV[4], ARGV[6]
local turn
if ARGV[3] == '' then
  turn = redis.call('HDEL', KEYS[1], client) == 1
else
  turn = redis.call('HSET', KEYS[1], client, ARGV[3]) == 1
end
local user_turn = note(KEYS[2], user, lease, ARGV[5])
if mode == 'user' then turn = user_turn end
if mode ~= 'off' and turn then redis.call(ARGV[10], ARGV[7], ARGV[8]) end
redis.call('PEXPIRE', KEYS[1], ARGV[9])
redis.call('PEXPIRE', KEYS[2], ARGV[9])
return turn and 1 or 0
"
);

/// Keys of a channel: meta, connections by lease, users. Arguments: ttl of its meta, and of one that nothing
/// was published to, ttl of the others.
const PLACE: &str = r"
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'offset')
local offset = meta[2] or '0'
redis.pcall('PEXPIRE', KEYS[1], offset == '0' and ARGV[2] or ARGV[1])
redis.pcall('PEXPIRE', KEYS[2], ARGV[3])
redis.pcall('PEXPIRE', KEYS[3], ARGV[3])
return offset .. ':' .. (meta[1] or '')
";

/// Every script, in the order of [`Script`].
const TEXTS: [&str; 6] = [PUBLISH, READ, BEAT, ROLL, ENTER, PLACE];

/// How long the place of a stream is kept that nothing was published to: as long as its channel is followed,
/// it is looked at more often.
const UNUSED_TTL: Duration = Duration::from_secs(10 * 60);

/// Publications that are read of a stream at once.
const READ_MAX: usize = 500;
