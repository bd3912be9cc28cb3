//! Where a test works: a fresh folder of one of the stores.

use forebay_store::{Dataset, Location};

/// A fresh folder. Deleted at the end where it is local.
pub(crate) struct Place {
    pub(crate) url: String,
    _folder: Option<tempfile::TempDir>,
}

impl Place {
    pub(crate) async fn location(&self) -> Location {
        Location::open(&self.url).await.expect("location")
    }

    pub(crate) async fn dataset(&self) -> Dataset {
        Dataset::create(&self.url).await.expect("dataset")
    }
}

/// A name that no other test or run uses.
fn unique() -> String {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock").as_nanos();
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    format!("t{nanos}-{}-{}", std::process::id(), COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

pub(crate) fn memory() -> Option<Place> {
    Some(Place { url: format!("memory://{}", unique()), _folder: None })
}

pub(crate) fn file() -> Option<Place> {
    let folder = tempfile::tempdir().expect("folder");
    Some(Place { url: format!("{}/a folder", folder.path().display()), _folder: Some(folder) })
}

pub(crate) fn s3() -> Option<Place> {
    match std::env::var("FOREBAY_TEST_S3") {
        Ok(url) if !url.is_empty() => Some(Place { url: format!("{}/{}", url.trim_end_matches('/'), unique()), _folder: None }),
        _ => {
            eprintln!("skipped: no S3 server (FOREBAY_TEST_S3 unset)");
            None
        }
    }
}

/// Runs every fact on every store.
macro_rules! on_every_store {
    ($($fact:ident),+ $(,)?) => {
        $crate::place::on_every_store!(@store memory: $($fact),+);
        $crate::place::on_every_store!(@store file: $($fact),+);
        $crate::place::on_every_store!(@store s3: $($fact),+);
    };
    (@store $store:ident: $($fact:ident),+) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $fact() {
                    if let Some(place) = crate::place::$store() {
                        super::$fact(place).await;
                    }
                }
            )+
        }
    };
}
pub(crate) use on_every_store;
