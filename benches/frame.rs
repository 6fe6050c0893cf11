//! Payload to frame and back, by size, beside fastwebsockets' own reader.
//!
//! Both readers are given the same input: 64 KiB of masked frames at a time, or less where one
//! frame is larger, copied from elsewhere as a socket would.

use std::hint::black_box;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanfare::Message;
use fanfare::frame::{Decoder, Item, Limits};
use fanfare::internals;
use fastwebsockets::{FragmentCollector, Role, WebSocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const SIZES: [usize; 6] = [16, 128, 1 << 10, 16 << 10, 64 << 10, 1 << 20];

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for size in SIZES {
        let payload = Bytes::from(vec![b'x'; size]);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("frame", size), |bencher| {
            // A message keeps its frame, so each is encoded but once.
            bencher.iter(|| internals::encode(&Message::binary(payload.clone())));
        });
        group.bench_function(BenchmarkId::new("copy", size), |bencher| {
            bencher.iter(|| black_box(&payload).to_vec());
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode and unmask");
    for size in SIZES {
        let frames = (READ_BYTES / size).max(1);
        let input = masked_frame(size).repeat(frames);
        group.throughput(Throughput::Bytes((size * frames) as u64));
        group.bench_function(BenchmarkId::new("fanfare", size), |bencher| {
            let mut decoder = Decoder::new(Limits { message_bytes: 1 << 20 });
            let mut scratch = vec![0; READ_BYTES];
            bencher.iter(|| assert_eq!(read(&mut decoder, &input, &mut scratch), frames));
        });
        group.bench_function(BenchmarkId::new("fastwebsockets", size), |bencher| {
            let source = Source { input: input.clone(), at: 0 };
            let mut reader =
                FragmentCollector::new(WebSocket::after_handshake(source, Role::Server));
            bencher.iter(|| {
                for _ in 0..frames {
                    let Poll::Ready(frame) = poll(reader.read_frame()) else { panic!("it waits") };
                    assert_eq!(frame.map(|frame| frame.payload.len()).ok(), Some(size));
                }
            });
        });
    }
    group.finish();
}

/// Reads the input as a connection does; returns the messages.
fn read(decoder: &mut Decoder, input: &[u8], scratch: &mut [u8]) -> usize {
    let mut messages = 0;
    for piece in input.chunks(scratch.len()) {
        let mut piece = {
            let read = &mut scratch[..piece.len()];
            read.copy_from_slice(piece);
            read
        };
        while let Ok(Some(item)) = decoder.decode(&mut piece) {
            messages += usize::from(matches!(black_box(item), Item::Text(_)));
        }
    }
    messages
}

/// A text frame with a mask of its own.
fn masked_frame(size: usize) -> Vec<u8> {
    let mut frame = vec![0x81];
    match size {
        0..126 => frame.push(0x80 | size as u8),
        126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((size as u16).to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((size as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend(mask);
    frame.extend((0..size).map(|index| b'x' ^ mask[index % 4]));
    frame
}

/// Polls what never waits, without a runtime.
fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A socket on which the same input arrives again and again.
struct Source {
    input: Vec<u8>,
    at: usize,
}

impl AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self.input.len().min(self.at + buffer.remaining());
        buffer.put_slice(&self.input[self.at..end]);
        self.at = end % self.input.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Source {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Bytes that a connection reads at once.
const READ_BYTES: usize = 64 << 10;

criterion_group!(benches, encode, decode);
criterion_main!(benches);
