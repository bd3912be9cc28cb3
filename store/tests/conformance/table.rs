//! Tables of both formats.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, FixedSizeListArray, LargeBinaryArray, ListBuilder, RecordBatch, UInt32Array, UInt64Builder};
use arrow::array::{FixedSizeBinaryArray, UInt16Array, UInt32Builder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use forebay_schemas::dataset::{TableFormat, TableRef};
use forebay_schemas::record;
use forebay_store::{Dataset, Error, Kind, Table, Tables};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use crate::place::{Place, on_every_store};

on_every_store!(
    rows_come_back_in_the_order_asked_for,
    rows_of_local_lance_files_are_read_as_they_are_in_memory,
    ids_of_two_bytes_come_back,
    rows_that_were_read_take_little_more_than_they_are,
    images_come_back_byte_for_byte,
    a_crashed_append_is_in_no_table,
    of_two_appends_to_one_parent_none_sees_the_other,
    a_table_may_be_empty,
    a_failing_source_fails_the_write_with_its_own_error,
    what_is_not_there_is_refused,
    a_table_that_lost_rows_is_corrupt,
    parts_less_deleted_rows_are_one_table,
    a_filter_selects_the_same_rows_in_every_layout,
    what_is_no_filter_is_refused,
);

const FORMATS: [TableFormat; 2] = [TableFormat::Lance, TableFormat::Parquet];
/// So long that Lance keeps rows as they are in memory.
const LENGTH: usize = 127;

/// Token sequences number `rows`; every token tells its row and place.
pub(crate) fn sequences(rows: Range<u64>) -> RecordBatch {
    sequences_of(rows, 4)
}

/// The same with ids of so many bytes; of 2 they are the lower half.
fn sequences_of(rows: Range<u64>, id_bytes: usize) -> RecordBatch {
    let schema = record::sequences(LENGTH, id_bytes);
    let tokens = rows.clone().flat_map(|row| (0..=LENGTH as u32).map(move |at| token(row, at)));
    let tokens: Arc<dyn Array> = match id_bytes {
        2 => Arc::new(UInt16Array::from_iter_values(tokens.map(|token| token as u16))),
        _ => Arc::new(UInt32Array::from_iter_values(tokens)),
    };
    let DataType::FixedSizeList(item, length) = schema.field(0).data_type() else { panic!("tokens") };
    let tokens = FixedSizeListArray::new(item.clone(), *length, tokens, None);
    let inner = |index: usize| match schema.field(index).data_type() {
        DataType::List(item) => item.clone(),
        other => panic!("{other}"),
    };
    let mut documents = ListBuilder::new(UInt64Builder::new()).with_field(inner(1));
    let mut starts = ListBuilder::new(UInt32Builder::new()).with_field(inner(2));
    for row in rows {
        documents.append_value((0..row % 3).map(|document| Some(row + document)));
        starts.append_value((0..row % 3).map(|document| Some(document as u32)));
    }
    let columns: Vec<Arc<dyn Array>> = vec![Arc::new(tokens), Arc::new(documents.finish()), Arc::new(starts.finish())];
    RecordBatch::try_new(schema, columns).expect("batch")
}

fn token(row: u64, at: u32) -> u32 {
    row as u32 * 1000 + at
}

pub(crate) fn stream(batches: Vec<RecordBatch>) -> BoxStream<'static, Result<RecordBatch, Error>> {
    futures::stream::iter(batches.into_iter().map(Ok)).boxed()
}

/// Batches of an uneven size.
fn batches(rows: Range<u64>) -> Vec<RecordBatch> {
    rows.clone().step_by(337).map(|start| sequences(start..rows.end.min(start + 337))).collect()
}

async fn write(tables: &Arc<dyn Tables>, parent: Option<&TableRef>, rows: Range<u64>) -> Result<TableRef, Error> {
    tables.write("tables/train", parent, record::sequences(LENGTH, 4), stream(batches(rows))).await
}

async fn expect_rows(tables: &Arc<dyn Tables>, table: &TableRef, rows: Vec<u64>) {
    let table = tables.open(table).await.expect("open");
    assert_eq!(table.rows(), rows.len() as u64);
    let scanned: Vec<RecordBatch> = table.scan(&["tokens"]).await.expect("scan").try_collect().await.expect("rows");
    let found: Vec<u64> = scanned.iter().flat_map(first_tokens).collect();
    assert_eq!(found, rows);
}

fn first_tokens(batch: &RecordBatch) -> Vec<u64> {
    let tokens = batch.column_by_name("tokens").expect("tokens").as_fixed_size_list();
    let values = tokens.values().as_primitive::<UInt32Type>().values();
    (0..batch.num_rows()).map(|row| u64::from(values[tokens.value_offset(row) as usize] / 1000)).collect()
}

/// A small generator, so that a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

async fn rows_come_back_in_the_order_asked_for(place: Place) {
    let dataset = place.dataset().await;
    for format in FORMATS {
        let tables = dataset.tables(format);
        // Three writes, so that the table has several parts.
        let first = write(&tables, None, 0..1500).await.expect("write");
        let second = write(&tables, Some(&first), 1500..1501).await.expect("append");
        let written = write(&tables, Some(&second), 1501..2900).await.expect("append");
        expect_rows(&tables, &written, (0..2900).collect()).await;
        expect_rows(&tables, &first, (0..1500).collect()).await;

        let model = sequences(0..2900);
        let table = tables.open(&written).await.expect("open");
        assert_eq!(table.schema(), model.schema());
        for seed in 0..40 {
            let mut random = Random(seed);
            let ranges: Vec<Range<u64>> = (0..random.below(6))
                .map(|_| {
                    let start = random.below(2900);
                    start..(start + random.below(257)).min(2900)
                })
                .collect();
            let slices: Vec<RecordBatch> =
                ranges.iter().map(|range| model.slice(range.start as usize, (range.end - range.start) as usize)).collect();
            let expected = arrow::compute::concat_batches(&model.schema(), &slices).expect("concat");
            let found = table.read(&ranges, &["tokens", "documents", "starts"]).await.expect("read");
            assert_eq!(found, expected, "{format:?}, seed {seed}, {ranges:?}");
            let found = table.read(&ranges, &["starts", "tokens"]).await.expect("read");
            assert_eq!(found, expected.project(&[2, 0]).expect("project"), "{format:?}, seed {seed}, {ranges:?}");
        }
    }
}

/// The numbers that the tokens tell of rows read as they are in memory, and how many reads it took; none if they have to be decoded.
async fn straight(table: &dyn Table, rows: &[u64]) -> Option<(Vec<u64>, usize)> {
    let direct = table.direct(rows, "tokens").await.expect("direct")?;
    assert_eq!((direct.width(), direct.rows()), (4 * (LENGTH + 1), rows.len()));
    let mut memory = Vec::new();
    direct.read(|_, rows| memory.extend_from_slice(rows)).expect("rows");
    let number = |row: &[u8]| {
        let ids: Vec<u32> = row.chunks_exact(4).map(|id| u32::from_le_bytes(id.try_into().expect("four bytes"))).collect();
        assert!((0..).zip(&ids).all(|(at, id)| *id == ids[0] + at), "{ids:?}");
        u64::from(ids[0] / 1000)
    };
    Some((memory.chunks_exact(direct.width()).map(number).collect(), direct.reads()))
}

async fn rows_of_local_lance_files_are_read_as_they_are_in_memory(place: Place) {
    let (dataset, local) = (place.dataset().await, !place.url.contains("://"));
    for format in FORMATS {
        let tables = dataset.tables(format);
        let first = write(&tables, None, 0..1500).await.expect("write");
        let second = write(&tables, Some(&first), 1500..2900).await.expect("append");
        let last = tables.write("tables/last", None, record::sequences(LENGTH, 4), stream(batches(2900..3000))).await.expect("write");
        let joined = dataset.extend_table(&second, &[1, 2, 1499, 2899], last).await.expect("extend");
        let left: Vec<u64> = (0..3000).filter(|row| ![1, 2, 1499, 2899].contains(row)).collect();
        for (written, expected) in [(second, (0..2900).collect()), (joined, left)] {
            let table = tables.open(&written).await.expect("open");
            let mut random = Random(7);
            let mut rows: Vec<u64> = (0..700).map(|_| random.below(table.rows())).chain([0, table.rows() - 1]).collect();
            rows.sort_unstable();
            let numbers = |rows: &[u64]| rows.iter().map(|row| expected[*row as usize]).collect::<Vec<u64>>();
            if !local || format != TableFormat::Lance {
                assert!(straight(table.as_ref(), &rows).await.is_none(), "{format:?} in {}", place.url);
                continue;
            }
            assert_eq!(straight(table.as_ref(), &rows).await.expect("rows").0, numbers(&rows));
            // Neighbours are one read; a file ends one, and so does a row that is not there.
            let neighbours: Vec<u64> = (1300..1700).collect();
            assert_eq!(straight(table.as_ref(), &neighbours).await.expect("rows"), (numbers(&neighbours), 2));
            assert!(table.direct(&[3, table.rows()], "tokens").await.expect("direct").is_none());
            assert!(table.direct(&[3], "starts").await.expect("direct").is_none());
            assert!(table.direct(&[3], "nothing").await.expect("direct").is_none());
        }
    }
}

/// Many rows of a list, each far from the next, are not held with the room of all that lie between them, nor files with the room
/// into which they were gathered.
async fn rows_that_were_read_take_little_more_than_they_are(place: Place) {
    let dataset = place.dataset().await;
    let check = async |format, written: &TableRef, apart: u64, column: &str, most: usize| {
        let ranges: Vec<Range<u64>> = (0..written.rows / apart).map(|row| apart * row..apart * row + 1).collect();
        let found = dataset.tables(format).open(written).await.expect("open").read(&ranges, &[column]).await.expect("read");
        let (held, used) = (found.get_array_memory_size(), found.column(0).to_data().get_slice_memory_size().expect("size"));
        assert!(held < most * used / 100 + (64 << 10), "{format:?}: {held} bytes of `{column}` are held of {used}");
    };
    for format in FORMATS {
        let tables = dataset.tables(format);
        let written = write(&tables, None, 0..20_000).await.expect("write");
        check(format, &written, 40, "starts", 200).await;
        let model = images(0..300);
        let written = tables.write("tables/pictures", None, model.schema(), stream(vec![model])).await.expect("write");
        check(format, &written, 2, "bytes", 105).await;
    }
}

async fn ids_of_two_bytes_come_back(place: Place) {
    let (dataset, local) = (place.dataset().await, !place.url.contains("://"));
    let model = sequences_of(0..600, 2);
    for format in FORMATS {
        let tables = dataset.tables(format);
        let written = tables.write("tables/train", None, model.schema(), stream(vec![model.clone()])).await.expect("write");
        let table = tables.open(&written).await.expect("open");
        let found = table.read(&[3..50, 590..600], &["tokens"]).await.expect("read");
        let expected = [model.slice(3, 47), model.slice(590, 10)];
        assert_eq!(found, arrow::compute::concat_batches(&model.schema(), &expected).expect("concat").project(&[0]).expect("project"));
        let direct = table.direct(&[7, 8, 300], "tokens").await.expect("direct");
        assert_eq!(direct.is_some(), local && format == TableFormat::Lance);
        let Some(direct) = direct else { continue };
        let mut memory = Vec::new();
        direct.read(|_, rows| memory.extend_from_slice(rows)).expect("rows");
        let row = |row: u64| (0..=LENGTH as u32).flat_map(move |at| (token(row, at) as u16).to_le_bytes());
        assert_eq!((direct.width(), direct.reads(), memory), (2 * (LENGTH + 1), 2, [7, 8, 300].into_iter().flat_map(row).collect()));
    }
}

fn images(rows: Range<u32>) -> RecordBatch {
    let bytes: Vec<Vec<u8>> = rows.clone().map(|row| (0..(row * 7919) % 60_000).map(|at| (row + at) as u8).collect()).collect();
    let ids: Vec<[u8; 32]> = rows.clone().map(|row| [row as u8; 32]).collect();
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(FixedSizeBinaryArray::try_from_iter(ids.iter()).expect("ids")),
        Arc::new(LargeBinaryArray::from_iter_values(bytes)),
        Arc::new(UInt32Array::from_iter_values(rows.clone())),
        Arc::new(UInt32Array::from_iter_values(rows.clone())),
        Arc::new(UInt32Array::from_iter_values(rows)),
    ];
    RecordBatch::try_new(record::images(), columns).expect("batch")
}

async fn images_come_back_byte_for_byte(place: Place) {
    let dataset = place.dataset().await;
    let model = images(0..300);
    for format in FORMATS {
        let tables = dataset.tables(format);
        let written = tables.write("tables/images", None, record::images(), stream(vec![model.clone()])).await.expect("write");
        let table = tables.open(&written).await.expect("open");
        let found = table.read(&[250..300, 3..4, 0..2], &["bytes", "label"]).await.expect("read");
        let slices = [model.slice(250, 50), model.slice(3, 1), model.slice(0, 2)];
        let expected = arrow::compute::concat_batches(&model.schema(), &slices).expect("concat").project(&[1, 2]).expect("project");
        assert_eq!(found, expected, "{format:?}");
        let scanned: Vec<RecordBatch> = table.scan(&["id", "bytes"]).await.expect("scan").try_collect().await.expect("rows");
        let scanned = arrow::compute::concat_batches(&scanned[0].schema(), &scanned).expect("concat");
        assert_eq!(scanned, model.project(&[0, 1]).expect("project"), "{format:?}");
    }
}

async fn a_crashed_append_is_in_no_table(place: Place) {
    let dataset = place.dataset().await;
    for format in FORMATS {
        let tables = dataset.tables(format);
        // A writer that wrote and died before its manifest, at every stage.
        write(&tables, None, 9000..9100).await.expect("orphan");
        let first = write(&tables, None, 0..100).await.expect("write");
        write(&tables, Some(&first), 9000..9050).await.expect("orphan");
        write(&tables, Some(&first), 8000..8050).await.expect("orphan");
        // A process that starts anew has nothing in memory.
        let tables = Dataset::create(&place.url).await.expect("again").tables(format);
        let second = write(&tables, Some(&first), 100..250).await.expect("append");
        expect_rows(&tables, &second, (0..250).collect()).await;
        expect_rows(&tables, &first, (0..100).collect()).await;
    }
}

async fn of_two_appends_to_one_parent_none_sees_the_other(place: Place) {
    let dataset = place.dataset().await;
    for format in FORMATS {
        let tables = dataset.tables(format);
        let parent = write(&tables, None, 0..10).await.expect("write");
        for _ in 0..4 {
            let (left, right) = tokio::join!(write(&tables, Some(&parent), 10..20), write(&tables, Some(&parent), 20..30));
            for (written, rows) in [(left, 10..20), (right, 20..30)] {
                match written {
                    Ok(table) => expect_rows(&tables, &table, (0..10).chain(rows).collect()).await,
                    Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{error}"),
                }
            }
        }
    }
}

async fn a_table_may_be_empty(place: Place) {
    let dataset = place.dataset().await;
    for format in FORMATS {
        let tables = dataset.tables(format);
        let empty = write(&tables, None, 0..0).await.expect("write");
        expect_rows(&tables, &empty, vec![]).await;
        let table = tables.open(&empty).await.expect("open");
        assert_eq!(table.schema(), record::sequences(LENGTH, 4));
        assert_eq!(table.read(&[], &["tokens"]).await.expect("read").num_rows(), 0);
        let still = write(&tables, Some(&empty), 0..0).await.expect("append nothing");
        expect_rows(&tables, &still, vec![]).await;
        let some = write(&tables, Some(&still), 0..3).await.expect("append");
        expect_rows(&tables, &some, vec![0, 1, 2]).await;
        let same = write(&tables, Some(&some), 0..0).await.expect("append nothing");
        expect_rows(&tables, &same, vec![0, 1, 2]).await;
    }
}

async fn a_failing_source_fails_the_write_with_its_own_error(place: Place) {
    let dataset = place.dataset().await;
    for format in FORMATS {
        let tables = dataset.tables(format);
        for good in [vec![], batches(0..700)] {
            let rows = stream(good).chain(futures::stream::iter([Err(Error::new(Kind::Corrupt, "record 7: bad"))])).boxed();
            let error = tables.write("tables/train", None, record::sequences(LENGTH, 4), rows).await.expect_err("fails");
            assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Corrupt, "record 7: bad"));
        }
        let written = write(&tables, None, 0..5).await.expect("write");
        expect_rows(&tables, &written, (0..5).collect()).await;
    }
}

async fn what_is_not_there_is_refused(place: Place) {
    let dataset = place.dataset().await;
    for format in FORMATS {
        let tables = dataset.tables(format);
        let written = write(&tables, None, 0..5).await.expect("write");
        let table = tables.open(&written).await.expect("open");
        let error = table.read(std::slice::from_ref(&(3..6)), &["tokens"]).await.expect_err("rows");
        assert!(error.kind() == Kind::Invalid && error.to_string().contains("rows 3..6: it has 5 rows"), "{error}");
        let error = table.read(std::slice::from_ref(&(3..4)), &["token"]).await.expect_err("column");
        assert!(error.kind() == Kind::Invalid && error.to_string().contains("no column `token`, expected one of tokens"), "{error}");
        assert_eq!(table.scan(&["token"]).await.err().expect("column").kind(), Kind::Invalid);
    }
}

async fn a_table_that_lost_rows_is_corrupt(place: Place) {
    let dataset = place.dataset().await;
    for format in FORMATS {
        let tables = dataset.tables(format);
        let written = write(&tables, None, 0..500).await.expect("write");
        let error = tables.open(&TableRef { rows: 501, ..written.clone() }).await.err().expect("rows");
        assert!(error.kind() == Kind::Corrupt && error.to_string().contains("500 rows, expected 501"), "{error}");
        // Cut every data file short, then take it away.
        let files: Vec<String> = dataset
            .location()
            .list("tables")
            .try_filter_map(|meta| {
                let path =
                    dataset.location().relative(&meta.location).filter(|path| path.ends_with(".lance") || path.ends_with(".parquet"));
                async move { Ok(path) }
            })
            .try_collect()
            .await
            .expect("files");
        for file in &files {
            let whole = dataset.location().get(file).await.expect("get");
            dataset.location().put(file, whole.slice(..whole.len() / 2)).await.expect("cut");
        }
        // A process that starts anew, because data files are immutable and may be remembered.
        let tables = Dataset::create(&place.url).await.expect("again").tables(format);
        let error = match tables.open(&written).await {
            Ok(table) => table.read(std::slice::from_ref(&(0..500)), &["tokens"]).await.expect_err("cut"),
            Err(error) => error,
        };
        assert!(!error.to_string().contains('\n'), "{error}");
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        for file in &files {
            dataset.location().delete(file).await.expect("delete");
        }
    }
}

/// The schema of all tables here.
pub(crate) fn schema() -> SchemaRef {
    record::sequences(LENGTH, 4)
}

async fn parts_less_deleted_rows_are_one_table(place: Place) {
    let dataset = place.dataset().await;
    let part = |name: &'static str, format, rows: Range<u64>| {
        let tables = dataset.tables(format);
        async move { tables.write(name, None, record::sequences(LENGTH, 4), stream(batches(rows))).await.expect("write") }
    };
    let first = part("tables/a/x", TableFormat::Lance, 0..700).await;
    let second = part("tables/b/x", TableFormat::Parquet, 700..1_000).await;
    let third = part("tables/c/x", TableFormat::Lance, 1_000..1_010).await;
    let two = dataset.extend_table(&first, &[0, 5, 6, 699], second).await.expect("extend");
    // Row 695 of the two is the last of the first part that is left, row 696 the first of the second.
    let three = dataset.extend_table(&two, &[695, 696], third.clone()).await.expect("extend");
    let expected: Vec<u64> = (0..1_010).filter(|row| ![0, 5, 6, 698, 699, 700].contains(row)).collect();
    assert_eq!(three.rows, expected.len() as u64);
    let tables = dataset.tables(TableFormat::Lance);
    expect_rows(&tables, &three, expected.clone()).await;
    let table = tables.open(&three).await.expect("open");
    let ranges = [990..expected.len() as u64, 0..4, 690..700, 3..3];
    let read = table.read(&ranges, &["tokens"]).await.expect("read");
    let wanted: Vec<u64> = ranges.iter().flat_map(|range| expected[range.start as usize..range.end as usize].to_vec()).collect();
    let rows: Vec<u64> = (0..read.num_rows())
        .map(|row| u64::from(read.column(0).as_fixed_size_list().value(row).as_primitive::<UInt32Type>().value(0) / 1000))
        .collect();
    assert_eq!(rows, wanted);
    let nothing = dataset.extend_table(&three, &[], TableRef { rows: 0, ..third }).await.expect("extend");
    assert_eq!(nothing.parts, three.parts);
    let error = tables.open(&TableRef { rows: 1, ..three }).await.err().expect("rows");
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
}

/// A table of one column of labels, null for every 50th row.
async fn labels(dataset: &Dataset, name: &str, format: TableFormat, rows: Range<u32>) -> TableRef {
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("bytes", DataType::LargeBinary, false), Field::new("label", DataType::UInt32, true)]));
    let batches = rows.clone().step_by(337).map(|start| {
        let rows = start..rows.end.min(start + 337);
        let bytes = LargeBinaryArray::from_iter_values(rows.clone().map(|row| row.to_le_bytes()));
        let labels: UInt32Array = rows.map(|row| (row % 50 != 0).then_some(row % 7)).collect();
        RecordBatch::try_new(schema.clone(), vec![Arc::new(bytes), Arc::new(labels)]).expect("batch")
    });
    let batches = batches.collect();
    dataset.tables(format).write(name, None, schema.clone(), stream(batches)).await.expect("write")
}

async fn selected(dataset: &Dataset, table: &TableRef, predicate: &str) -> Vec<u64> {
    let table = dataset.tables(table.format).open(table).await.expect("open");
    let ranges: Vec<Vec<Range<u64>>> = table.select(predicate).await.expect("select").try_collect().await.expect("ranges");
    let rows: Vec<u64> = ranges.into_iter().flatten().flatten().collect();
    assert!(rows.windows(2).all(|pair| pair[0] < pair[1]));
    rows
}

async fn a_filter_selects_the_same_rows_in_every_layout(place: Place) {
    let dataset = place.dataset().await;
    let lance = labels(&dataset, "tables/1/train", TableFormat::Lance, 0..2_000).await;
    let parquet = labels(&dataset, "tables/2/train", TableFormat::Parquet, 0..2_000).await;
    let label = |row: u64| (!row.is_multiple_of(50)).then_some(row % 7);
    let expect = |wanted: fn(Option<u64>) -> bool| (0..2_000).filter(|row| wanted(label(*row))).collect::<Vec<u64>>();
    for (predicate, expected) in [
        ("label = 3", expect(|label| label == Some(3))),
        ("label < 2 OR label IN (5, 6)", expect(|label| label.is_some_and(|label| !(2..=4).contains(&label)))),
        ("NOT (label = 3)", expect(|label| label.is_some_and(|label| label != 3))),
        ("label IS NULL", expect(|label| label.is_none())),
        ("label * 2 + 1 >= 13.0", expect(|label| label == Some(6))),
        ("true", (0..2_000).collect()),
        ("label > 100", Vec::new()),
    ] {
        assert_eq!(selected(&dataset, &lance, predicate).await, expected, "Lance, {predicate}");
        assert_eq!(selected(&dataset, &parquet, predicate).await, expected, "Parquet, {predicate}");
    }
    let more = labels(&dataset, "tables/3/train", TableFormat::Parquet, 2_000..2_100).await;
    let joined = dataset.extend_table(&lance, &[3, 10, 11, 1_999], more).await.expect("extend");
    let left: Vec<u64> = (0..2_100).filter(|row| ![3, 10, 11, 1_999].contains(row)).collect();
    let expected: Vec<u64> = (0..).zip(&left).filter(|(_, row)| label(**row) == Some(3)).map(|(at, _)| at).collect();
    assert_eq!(selected(&dataset, &joined, "label = 3").await, expected);
}

async fn what_is_no_filter_is_refused(place: Place) {
    let dataset = place.dataset().await;
    for format in FORMATS {
        let table = labels(&dataset, "tables/train", format, 0..10).await;
        let table = dataset.tables(format).open(&table).await.expect("open");
        for (predicate, expected) in [
            ("label =", "label ="),
            ("colour = 3", "colour"),
            ("label + 1", "expected true or false"),
            ("random() < 0.5", "depends on the row alone"),
            ("label IN (SELECT 1)", "filter `label IN (SELECT 1)`"),
        ] {
            let error = table.select(predicate).await.err().expect("refused");
            assert!(error.kind() == Kind::Invalid && error.to_string().contains(expected), "{format:?}, {predicate}: {error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
