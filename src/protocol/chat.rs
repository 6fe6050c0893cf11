//! The chat protocol: the seed's JSON, byte for byte.
