//! The Centrifuge protocol, to the byte.

// What ends with a token, and how it is made to last.
mod expiry;
// What a frame may hold, what closes a connection, and pings.
mod framing;
// What a channel remembers, page by page.
mod history;
// What is too much, and that only who did it suffers.
mod limits;
// Recovery and subscribing while others publish.
mod live;
// What comes without being a publication, and how a backend ends things.
mod messages;
mod model;
// Who is on a channel, and who is told of it.
mod presence;
// What those who come back get, and when they get nothing.
mod recovery;
// Commands that are refused, and that the connection's other channels go on.
mod refusals;
// What tokens grant, and what there is without one.
mod tokens;
