//! Settings that are one of a few words.

/// A setting that is one of a few words, without its type.
pub(super) trait Choice {
    /// The words, in the order in which they are told.
    fn words(&self) -> &'static [&'static str];

    /// The word that is chosen.
    fn word(&self) -> &'static str;

    /// Chooses by word; false if it is none of them.
    fn choose(&mut self, word: &str) -> bool;
}

/// An enum whose variants are words in a configuration.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $($(#[$variant_meta:meta])* $word:literal => $variant:ident,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $crate::config::choice::Choice for $name {
            fn words(&self) -> &'static [&'static str] {
                &[$($word),+]
            }

            fn word(&self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            fn choose(&mut self, word: &str) -> bool {
                match word {
                    $($word => *self = Self::$variant,)+
                    _ => return false,
                }
                true
            }
        }
    };
}

pub(super) use choice;
