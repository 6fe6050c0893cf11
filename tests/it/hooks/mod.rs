// Yes, no, and otherwise.
mod decisions;
// No answer, or too late a one, and what that does to others.
mod failures;
// What an application is told, in order, until it takes it.
mod notices;
mod receiver;
// What is asked before a stream of Server-Sent Events begins.
mod streams;
