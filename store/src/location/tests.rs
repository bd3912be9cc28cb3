use super::*;

fn memory(name: &str) -> Location {
    open::open(&format!("memory://{name}/a b")).expect("memory")
}

#[tokio::test]
async fn an_object_is_written_listed_read_and_deleted() {
    let folder = tempfile::tempdir().expect("folder");
    let file = open::open(&format!("{}/not/there/yet", folder.path().display())).expect("file");
    for location in [memory("objects"), file] {
        location.put("x/a b#c%20d.bin", Bytes::from_static(b"0123456789")).await.expect("put");
        let listed: Vec<_> = location.list("x").try_collect().await.expect("list");
        assert_eq!(listed.len(), 1);
        let relative = location.relative(&listed[0].location).expect("below");
        assert_eq!(relative, "x/a b#c%20d.bin");
        assert_eq!(location.get(&relative).await.expect("get"), "0123456789");
        assert_eq!(location.child("x").get_range("a b#c%20d.bin", 2..4).await.expect("range"), "23");
        assert_eq!(location.head(&relative).await.expect("head").expect("there").size, 10);
        assert_eq!(location.folders("").await.expect("folders"), ["x"]);
        location.delete(&relative).await.expect("delete");
        location.delete(&relative).await.expect("delete again");
        assert!(location.head(&relative).await.expect("head").is_none());
    }
}

#[tokio::test]
async fn an_object_of_many_parts_arrives_whole() {
    let bytes: Bytes = (0..PART_BYTES * 2 + 12_345).map(|i| (i / 7) as u8).collect::<Vec<_>>().into();
    let folder = tempfile::tempdir().expect("folder");
    let location = Location::open(folder.path().to_str().expect("text")).await.expect("open");
    location.put("large", bytes.clone()).await.expect("put");
    assert_eq!(location.get("large").await.expect("get"), bytes);
}

#[tokio::test]
async fn a_missing_object_is_named() {
    let error = memory("missing").get("x").await.expect_err("missing");
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NotFound, "object `memory://missing/a%20b/x`: not found"));
}

#[test]
fn a_path_is_below_only_at_a_segment() {
    let location = memory("below");
    assert_eq!(location.relative(&Path::from("a b/c/d")), Some("c/d".to_owned()));
    assert_eq!(location.relative(&Path::from("a bc/d")), None);
}

#[tokio::test]
async fn a_file_in_the_way_of_a_folder_is_invalid() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("file"), "x").expect("file");
    let location = Location::open(&format!("{}/file", folder.path().display())).await.expect("open");
    let error = location.put("below", Bytes::from_static(b"x")).await.expect_err("a file is no folder");
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
}

#[test]
fn a_home_may_be_a_default() {
    let home = std::env::var("HOME").expect("HOME");
    let open = |text: &str| open::open(text).expect("location").url().path().trim_end_matches('/').to_owned();
    assert_eq!(open("${FOREBAY_NEVER_SET:-~/x}"), format!("{}/x", home.trim_end_matches('/')));
    assert_eq!(open("~/x"), open("${HOME}/x"));
}
