//! Small datasets in temporary folders, committed through `store`.

use std::io::Cursor;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, FixedSizeBinaryArray, FixedSizeListArray, LargeBinaryArray, LargeStringArray, ListArray, RecordBatch, StringArray,
    UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, SchemaRef};
use forebay_loader::Sourced;
use forebay_schemas::Digest;
use forebay_schemas::dataset::{DatasetManifest, Modality, TableFormat};
use forebay_schemas::{check, record};
use forebay_store::{Dataset, Location};
use image::{ImageFormat, Rgb, RgbImage};
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use tokio::runtime::{Handle, Runtime};

/// Length of a sample.
pub(crate) const LENGTH: usize = 8;

/// A dataset with one version, of which the table `train` is read.
pub(crate) struct Lake {
    pub(crate) runtime: Runtime,
    pub(crate) dataset: Dataset,
    pub(crate) manifest: DatasetManifest,
    pub(crate) folder: tempfile::TempDir,
}

impl Lake {
    /// Row r holds the ids of [`expected_ids`].
    pub(crate) fn tokens(format: TableFormat, rows: u64) -> Self {
        Self::sequences(format, rows, LENGTH)
    }

    /// Rows as long as the demo's.
    pub(crate) fn wide_tokens(format: TableFormat, rows: u64) -> Self {
        Self::sequences(format, rows, 256)
    }

    /// The same with ids of four bytes, where two are enough.
    pub(crate) fn wide_ids(format: TableFormat, rows: u64) -> Self {
        let (schema, rows) = sequences(rows, 256, 4);
        Self::commit(format, Modality::Text, schema, rows)
    }

    fn sequences(format: TableFormat, rows: u64, length: usize) -> Self {
        let (schema, rows) = sequences(rows, length, record::id_bytes(rows as u32 * 10 + length as u32));
        Self::commit(format, Modality::Text, schema, rows)
    }

    /// The rows of [`Self::wide_tokens`] in a store of which each read takes so long, and each byte.
    pub(crate) fn far_tokens(rows: u64, a_read: Duration, a_byte: Duration) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let runtime = Runtime::new().expect("runtime");
        let store = Arc::new(ThrottledStore::new(InMemory::new(), ThrottleConfig::default()));
        let location = Location::from_store("memory://far".parse().expect("url"), store.clone(), "lake".into());
        let dataset = Dataset::at_location(location);
        let (schema, rows) = sequences(rows, 256, 2);
        let written = write(&dataset, TableFormat::Lance, Modality::Text, schema, rows);
        let manifest = runtime.block_on(written);
        store.config_mut(|config| (config.wait_get_per_call, config.wait_get_per_byte) = (a_read, a_byte));
        Self { runtime, dataset, manifest, folder }
    }

    /// Documents, a row each.
    pub(crate) fn documents(format: TableFormat, texts: &[String]) -> Self {
        let none = || Arc::new(StringArray::new_null(texts.len()));
        let ids = texts.iter().map(|text| *Digest::of(text.as_bytes()).as_bytes());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(FixedSizeBinaryArray::try_from_iter(ids).expect("ids")),
            Arc::new(LargeStringArray::from_iter_values(texts)),
            none(),
            none(),
            none(),
        ];
        let rows = batch(&record::documents(), columns);
        let mut lake = Self::commit(format, Modality::Text, record::documents(), vec![rows]);
        lake.manifest.tokenizer = None;
        lake.manifest.statistics.sequence_length = None;
        lake
    }

    /// JPEG pictures of one colour each, of several sizes, labelled by row modulo 10.
    pub(crate) fn images(rows: u64) -> Self {
        let encoded = (0..rows).map(|row| {
            let mut bytes = Vec::new();
            RgbImage::from_pixel(20 + row as u32 % 50, 30 + row as u32 % 11, Rgb(colour(row)))
                .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Jpeg)
                .expect("jpeg");
            bytes
        });
        Self::pictures(encoded.collect())
    }

    /// PNG pictures, of which these rows hold none.
    pub(crate) fn broken_images(rows: u64, broken: &[u64]) -> Self {
        let encoded = (0..rows).map(|row| {
            let mut bytes = Vec::new();
            RgbImage::from_pixel(30, 20, Rgb(colour(row))).write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).expect("png");
            if broken.contains(&row) { b"broken".to_vec() } else { bytes }
        });
        Self::pictures(encoded.collect())
    }

    /// The first images of CIFAR-10; none without the test data.
    pub(crate) fn cifar(count: usize) -> Option<Self> {
        let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
        let data = std::env::var_os("FOREBAY_TEST_DATA").map_or_else(|| PathBuf::from(default), PathBuf::from);
        let archive = data.join("cifar10_jpg.tar.zst");
        if !archive.exists() {
            println!("skipped: no test data");
            return None;
        }
        let folder = tempfile::tempdir().expect("temporary folder");
        let script = "tar --zstd -xOf \"$0\" cifar10_jpg/train.tar | tar -xf - -C \"$1\"";
        let status = Command::new("sh").arg("-c").arg(script).arg(archive).arg(folder.path()).status().expect("sh");
        assert!(status.success(), "tar with zstd");
        let mut encoded = Vec::new();
        let mut folders = vec![folder.path().to_owned()];
        while let Some(path) = folders.pop().filter(|_| encoded.len() < count) {
            for entry in std::fs::read_dir(path).expect("folder") {
                let path = entry.expect("entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    encoded.push(std::fs::read(path).expect("file"));
                }
            }
        }
        encoded.truncate(count);
        Some(Self::pictures(encoded))
    }

    fn pictures(encoded: Vec<Vec<u8>>) -> Self {
        let rows = encoded.len() as u32;
        let ids = encoded.iter().map(|bytes| *Digest::of(bytes).as_bytes());
        let side = || UInt32Array::from(vec![1; rows as usize]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(FixedSizeBinaryArray::try_from_iter(ids).expect("ids")),
            Arc::new(LargeBinaryArray::from_iter_values(&encoded)),
            Arc::new(UInt32Array::from_iter_values((0..rows).map(|row| row % 10))),
            Arc::new(side()),
            Arc::new(side()),
        ];
        Self::commit(TableFormat::Lance, Modality::Images, record::images(), vec![batch(&record::images(), columns)])
    }

    fn commit(format: TableFormat, modality: Modality, schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let runtime = Runtime::new().expect("runtime");
        let (dataset, manifest) = runtime.block_on(async {
            let dataset = Dataset::create(folder.path().to_str().expect("utf-8 path")).await.expect("dataset");
            let manifest = write(&dataset, format, modality, schema, batches).await;
            (dataset, manifest)
        });
        Self { runtime, dataset, manifest, folder }
    }

    /// All of it, of weight 1.
    pub(crate) fn source(&self) -> Sourced<'_> {
        Sourced { dataset: &self.dataset, manifest: &self.manifest, filter: None, weight: vec![(0, 1.0)] }
    }

    pub(crate) fn handle(&self) -> Handle {
        self.runtime.handle().clone()
    }
}

/// Batches of rows; the ids of row r begin with 10 r, and each is one document.
fn sequences(rows: u64, length: usize, id_bytes: usize) -> (SchemaRef, Vec<RecordBatch>) {
    let schema = record::sequences(length, id_bytes);
    let rows = (0..rows)
        .step_by(300)
        .map(|first| {
            let count = 300.min(rows - first) as usize;
            let ids = (first..first + count as u64).flat_map(|row| (0..=length as u64).map(move |i| (row * 10 + i) as u32));
            let (kind, ids): (DataType, ArrayRef) = match id_bytes {
                2 => (DataType::UInt16, Arc::new(UInt16Array::from_iter_values(ids.map(|id| id as u16)))),
                _ => (DataType::UInt32, Arc::new(UInt32Array::from_iter_values(ids))),
            };
            let tokens = FixedSizeListArray::new(item(kind), length as i32 + 1, ids, None);
            let one_each = OffsetBuffer::from_lengths(vec![1; count]);
            let documents = UInt64Array::from_iter_values(first..first + count as u64);
            let documents = ListArray::new(item(DataType::UInt64), one_each.clone(), Arc::new(documents), None);
            let starts = ListArray::new(item(DataType::UInt32), one_each, Arc::new(UInt32Array::from(vec![0; count])), None);
            batch(&schema, vec![Arc::new(tokens), Arc::new(documents), Arc::new(starts)])
        })
        .collect();
    (schema, rows)
}

/// Writes samples with their checks; gives the manifest of a version of them.
async fn write(dataset: &Dataset, format: TableFormat, modality: Modality, schema: SchemaRef, rows: Vec<RecordBatch>) -> DatasetManifest {
    let rows = rows.into_iter().map(|rows| Ok(check::with_checks(rows).expect("checks")));
    let rows = Box::pin(futures::stream::iter(rows.collect::<Vec<_>>()));
    let table = dataset.tables(format).write("tables/1/train", None, check::checked(schema), rows).await.expect("table");
    let golden = include_str!("../../../schemas/golden/dataset-2.json");
    let mut manifest: DatasetManifest = serde_json::from_str(golden).expect("manifest");
    manifest.modality = modality;
    manifest.tables = [("train".to_owned(), table)].into();
    manifest
}

/// The ids of a row of [`Lake::tokens`].
pub(crate) fn expected_ids(row: u64) -> Vec<u32> {
    (0..=LENGTH as u32).map(|i| row as u32 * 10 + i).collect()
}

/// The colour of a row of [`Lake::images`].
pub(crate) fn colour(row: u64) -> [u8; 3] {
    [(row * 37) as u8, (row * 11 + 90) as u8, (row * 71 + 30) as u8]
}

fn item(kind: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", kind, false))
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(schema.clone(), columns).expect("columns")
}
