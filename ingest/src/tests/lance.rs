//! Lance tables as sources.

use arrow::array::{ArrayRef, LargeStringArray, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use forebay_schemas::dataset::{TableFormat, TableRef};

use super::*;

/// Writes documents as rows of the Lance table `raw/{name}`, after those of `parent`.
async fn write(place: &Place, name: &str, parent: Option<&TableRef>, numbers: std::ops::Range<u32>) -> TableRef {
    let folder = Dataset::create(&place.folder.path().join("raw").display().to_string()).await.expect("folder");
    let columns: [(&str, ArrayRef); 3] = [
        ("noise", Arc::new(StringArray::from(vec!["x"; numbers.len()]))),
        ("text", Arc::new(numbers.clone().map(|number| (number % 5 > 0).then(|| document(number))).collect::<LargeStringArray>())),
        ("url", Arc::new(numbers.map(|number| Some(format!("https://example.org/{number}"))).collect::<StringArray>())),
    ];
    let fields: Vec<Field> = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.map(|(_, column)| column).to_vec()).expect("batch");
    assert_eq!(*batch.schema().field(1).data_type(), DataType::LargeUtf8);
    let (schema, rows) = (batch.schema(), Box::pin(futures::stream::iter([Ok(batch)])));
    folder.tables(TableFormat::Lance).write(name, parent, schema, rows).await.expect("table")
}

#[tokio::test]
async fn rows_of_a_lance_table_are_records() {
    let place = Place::new();
    let table = write(&place, "deep/crawl.lance", None, 0..20).await;
    place.put("a.rs", document(100));
    let manifest = committed(place.ingest(&["output='documents'"]).await);
    assert_eq!((manifest.inputs.objects, manifest.tally.read, manifest.tally.kept), (2, 21, 17));
    assert_eq!(manifest.tally.quarantined, counts(&[("no_text_field", 4)]));
    let ledger = place.read(&manifest, "records").await;
    let keys: Vec<&str> = ledger.column(0).as_string::<i32>().iter().flatten().collect();
    assert!(keys[0] == "a.rs" && keys[1] == "deep/crawl.lance#1" && keys[20] == "deep/crawl.lance#20", "{keys:?}");
    let documents = place.read(&manifest, "train").await;
    assert!(documents.column(2).as_string::<i32>().iter().flatten().any(|url| url == "https://example.org/1"));

    // A table that grew is another object, and all of it is read again.
    write(&place, "deep/crawl.lance", Some(&table), 20..30).await;
    let grown = committed(place.ingest(&["output='documents'"]).await);
    assert_eq!((grown.version, grown.tally.read, grown.tally.kept), (2, 31, 25));
}

#[tokio::test]
async fn a_table_can_be_the_source_itself_and_what_it_lacks_is_named() {
    let place = Place::new();
    write(&place, "crawl", None, 1..5).await;
    let url = format!("source.url='{}'", place.folder.path().join("raw/crawl").display());
    let manifest = committed(place.ingest(&[&url]).await);
    assert_eq!((manifest.inputs.objects, manifest.tally.kept), (1, 4));

    let planned = place.ingest(&[&url, "source.formats.text_field='body'"]).await.expect_err("nothing is left");
    assert!(planned.to_string().contains("no_text_field 1"), "{planned}");

    // Damage is a fault of the table, not the end of the job.
    place.put("a.rs", document(7));
    for file in walk(&place.folder.path().join("raw/crawl/data")) {
        fs::write(file, b"nothing like a table").expect("damage");
    }
    let manifest = committed(place.ingest(&["source.include=['*.rs','crawl']"]).await);
    assert_eq!((manifest.tally.kept, manifest.tally.quarantined.clone()), (1, counts(&[("unreadable", 1)])));
}
