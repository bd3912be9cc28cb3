//! What every store and every table format must do: one suite, run in memory, on local disk and on S3.
//!
//! S3 is tested where `FOREBAY_TEST_S3` names a bucket (`s3://bucket/prefix`, with the `AWS_*` variables set); elsewhere
//! its tests say that they are skipped. Every test works below a name of its own.

mod checkpoint;
mod commit;
mod crash;
mod dataset;
mod place;
mod refusal;
mod speed;
mod table;
