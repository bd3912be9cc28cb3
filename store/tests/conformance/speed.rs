//! How fast the loader's reads are; run by hand: `cargo test -p forebay-store speed -- --ignored --nocapture`.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    Array, FixedSizeBinaryArray, FixedSizeListArray, LargeBinaryArray, ListArray, RecordBatch, UInt32Array, new_empty_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use forebay_schemas::dataset::TableFormat;
use forebay_schemas::record;

use crate::place::{self, Place};
use crate::table::stream;

const TOKEN_ROWS: u64 = 200_000;
const IMAGE_ROWS: u64 = 50_000;

/// Rows of 256 tokens of a vocabulary of 4,096: 1 KiB each.
fn tokens(rows: Range<u64>) -> RecordBatch {
    let schema = record::sequences(255, 4);
    let values =
        UInt32Array::from_iter_values(rows.clone().flat_map(|row| (0..256u64).map(move |at| ((row * 31 + at * 17) % 4096) as u32)));
    let DataType::FixedSizeList(item, length) = schema.field(0).data_type() else { panic!("tokens") };
    let empty = |index: usize| -> Arc<dyn Array> {
        let DataType::List(item) = schema.field(index).data_type() else { panic!("list") };
        let offsets = OffsetBuffer::from_lengths(rows.clone().map(|_| 0));
        Arc::new(ListArray::new(item.clone(), offsets, new_empty_array(item.data_type()), None))
    };
    let tokens = FixedSizeListArray::new(item.clone(), *length, Arc::new(values), None);
    RecordBatch::try_new(schema.clone(), vec![Arc::new(tokens), empty(1), empty(2)]).expect("batch")
}

/// Images of 1,500 bytes.
fn images(rows: Range<u64>) -> RecordBatch {
    let numbers = || Arc::new(UInt32Array::from_iter_values(rows.clone().map(|row| row as u32))) as Arc<dyn Array>;
    let ids: Vec<[u8; 32]> = rows.clone().map(|row| [row as u8; 32]).collect();
    let bytes: Vec<Vec<u8>> = rows.clone().map(|row| (0..1500u64).map(|at| (row * 7 + at * at) as u8).collect()).collect();
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(FixedSizeBinaryArray::try_from_iter(ids.iter()).expect("ids")),
        Arc::new(LargeBinaryArray::from_iter_values(bytes)),
        numbers(),
        numbers(),
        numbers(),
    ];
    RecordBatch::try_new(record::images(), columns).expect("batch")
}

async fn measure(place: Place) {
    let dataset = place.dataset().await;
    for format in [TableFormat::Lance, TableFormat::Parquet] {
        for (kind, make, rows, columns) in [
            ("tokens", tokens as fn(Range<u64>) -> RecordBatch, TOKEN_ROWS, ["tokens"].as_slice()),
            ("images", images, IMAGE_ROWS, ["bytes", "label"].as_slice()),
        ] {
            let batches: Vec<RecordBatch> = (0..rows).step_by(1024).map(|at| make(at..rows.min(at + 1024))).collect();
            let (schema, tables) = (batches[0].schema(), dataset.tables(format));
            let began = Instant::now();
            let written = tables.write(&format!("tables/{kind}-{format:?}"), None, schema, stream(batches)).await.expect("write");
            let mebibytes = |rows: u64| (rows * if kind == "tokens" { 1024 } else { 1500 }) as f64 / f64::from(1 << 20);
            println!("{format:?} {kind}: write {:.0} MiB/s", mebibytes(rows) / began.elapsed().as_secs_f64());
            let began = Instant::now();
            let table = tables.open(&written).await.expect("open");
            println!("{format:?} {kind}: open {:?}", began.elapsed());
            for (run, reads) in [(256, 400), (32, 1000), (1, 1000)] {
                let began = Instant::now();
                let mut state = 1u64;
                for _ in 0..reads {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let start = (state >> 33) % (rows - run);
                    let batch = table.read(std::slice::from_ref(&(start..start + run)), columns).await.expect("read");
                    assert_eq!(batch.num_rows() as u64, run);
                }
                let seconds = began.elapsed().as_secs_f64();
                let (rate, each) = ((reads * run) as f64 / seconds, seconds * 1e6 / reads as f64);
                println!(
                    "{format:?} {kind}: reads of {run} rows: {:.0} MiB/s, {rate:.0} rows/s, {each:.0} us a read",
                    mebibytes(reads * run) / seconds
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, run by hand"]
async fn on_disk() {
    measure(place::file().expect("folder")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, run by hand"]
async fn on_s3() {
    if let Some(place) = place::s3() {
        measure(place).await;
    }
}
