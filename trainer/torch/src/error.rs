//! The trainer's error for what fails below this crate.

pub(crate) use forebay_trainer::{Error, Kind, Result};

pub(crate) fn of_libtorch(error: tch::TchError) -> Error {
    Error::with_source(Kind::Internal, "libtorch", error)
}

pub(crate) fn of_loader(error: forebay_loader::Error) -> Error {
    use forebay_loader::Kind as Loader;
    let kind = match error.kind() {
        Loader::Invalid => Kind::Invalid,
        Loader::NotFound => Kind::NotFound,
        Loader::Unavailable => Kind::Unavailable,
        Loader::Corrupt => Kind::Corrupt,
        Loader::Internal => Kind::Internal,
    };
    Error::with_source(kind, "loader", error)
}
