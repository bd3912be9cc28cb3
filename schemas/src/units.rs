//! Typed sizes and durations of settings: `"64MiB"`, `"500ms"`.
//!
//! A bare number is refused: a setting says its unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes; written as `"512B"`, `"64KiB"`, `"1MiB"`, `"2GiB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(pub u64);

/// A duration in milliseconds; written as `"500ms"`, `"3s"`, `"10m"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Millis(pub u64);

impl Millis {
    /// The same as a standard duration.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// A text is not a quantity with a unit.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("`{found}`: expected a whole number with a unit, one of {units}")]
pub struct BadQuantity {
    found: String,
    units: &'static str,
}

// Largest first, so that printing finds the largest unit that divides.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIMES: [(&str, u64); 3] = [("m", 60_000), ("s", 1_000), ("ms", 1)];

fn parse(text: &str, units: &[(&str, u64)], names: &'static str) -> Result<u64, BadQuantity> {
    let bad = || BadQuantity { found: text.to_owned(), units: names };
    let digits = text.trim().find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.trim().split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(bad)?;
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor)).ok_or_else(bad)
}

fn print(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (name, factor) =
        units.iter().find(|(_, factor)| value.is_multiple_of(*factor) && value >= *factor).unwrap_or(&units[units.len() - 1]);
    write!(f, "{}{name}", value / factor)
}

macro_rules! quantity {
    ($type:ident, $units:ident, $names:literal) => {
        impl FromStr for $type {
            type Err = BadQuantity;
            fn from_str(text: &str) -> Result<Self, BadQuantity> {
                parse(text, &$units, $names).map($type)
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                print(self.0, &$units, f)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

quantity!(ByteSize, SIZES, "B, KiB, MiB, GiB");
quantity!(Millis, TIMES, "ms, s, m");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantities_print_and_parse(n in 0u64..1 << 50) {
            prop_assert_eq!(ByteSize(n).to_string().parse(), Ok(ByteSize(n)));
            prop_assert_eq!(Millis(n).to_string().parse(), Ok(Millis(n)));
        }
    }

    #[test]
    fn a_number_without_unit_is_refused() {
        assert!("64".parse::<ByteSize>().is_err());
        assert!("3 hours".parse::<Millis>().is_err());
        assert!("99999999999999999999GiB".parse::<ByteSize>().is_err());
        assert_eq!("64 KiB".parse(), Ok(ByteSize(65_536)));
        assert_eq!("3s".parse(), Ok(Millis(3_000)));
    }
}
