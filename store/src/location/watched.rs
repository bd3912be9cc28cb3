//! A store that tells of its reads: when one is asked for, when its first bytes are there, when it is over.
//!
//! Promises: whatever becomes of a read, given up in the middle included, its end is told once. Deliberately absent: writes
//! and listings, and any measure; what is told is for others to count. Several ranges are joined as for any remote store.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// Is told of reads.
pub trait Watch: Send + Sync {
    /// A read was asked for.
    fn asked(&self);
    /// The first bytes of a read that was asked for are there.
    fn answered(&self);
    /// A read is over: all bytes came, it failed, or it was given up. So many bytes had come; none if it was not answered.
    fn ended(&self, got: Option<u64>);
}

pub(super) fn watched(store: Arc<dyn ObjectStore>, watch: Arc<dyn Watch>) -> Arc<dyn ObjectStore> {
    Arc::new(Watched { store, watch })
}

struct Watched {
    store: Arc<dyn ObjectStore>,
    watch: Arc<dyn Watch>,
}

// By hand, as in `Location`: the store's own `Debug` prints its whole configuration.
impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({})", self.store)
    }
}

/// A read under way.
struct Read {
    watch: Arc<dyn Watch>,
    got: Option<u64>,
}

impl Drop for Read {
    fn drop(&mut self) {
        self.watch.ended(self.got);
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.watch.asked();
        let mut read = Read { watch: self.watch.clone(), got: None };
        let mut result = self.store.get_opts(location, options).await?;
        self.watch.answered();
        read.got = Some(0);
        result.payload = match result.payload {
            // The read is over when its stream is dropped, which holds it.
            GetResultPayload::Stream(bytes) => {
                let count = move |bytes: &Result<Bytes>| {
                    let read = &mut read;
                    read.got = read.got.map(|got| got + bytes.as_ref().map_or(0, |bytes| bytes.len() as u64));
                };
                GetResultPayload::Stream(bytes.inspect(count).boxed())
            }
            // Only of a local disk, which is not watched.
            file => file,
        };
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.store.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Told {
        fn all(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.lock().expect("told"))
        }
    }

    impl Watch for Told {
        fn asked(&self) {
            self.0.lock().expect("told").push("asked".to_owned());
        }
        fn answered(&self) {
            self.0.lock().expect("told").push("answered".to_owned());
        }
        fn ended(&self, got: Option<u64>) {
            self.0.lock().expect("told").push(got.map_or_else(|| "failed".to_owned(), |got| format!("{got} bytes")));
        }
    }

    #[tokio::test]
    async fn every_read_is_told_from_beginning_to_end() {
        let told = Arc::new(Told::default());
        let store = watched(Arc::new(InMemory::new()), told.clone());
        let path = Path::from("a");
        store.put(&path, vec![1; 1000].into()).await.expect("put");
        let result = store.get(&path).await.expect("get");
        assert_eq!(told.all(), ["asked", "answered"]);
        assert_eq!((result.bytes().await.expect("bytes").len(), told.all()), (1000, vec!["1000 bytes".to_owned()]));
        drop(store.get(&path).await.expect("get"));
        assert_eq!(told.all(), ["asked", "answered", "0 bytes"]);
        assert!(store.get(&Path::from("b")).await.is_err());
        assert_eq!(told.all(), ["asked", "failed"]);
        assert_eq!(store.get_range(&path, 3..7).await.expect("range").len(), 4);
        assert_eq!(told.all(), ["asked", "answered", "4 bytes"]);
        assert_eq!(store.get_ranges(&path, &[0..2, 900..1000]).await.expect("ranges")[1].len(), 100);
        assert_eq!(told.all(), ["asked", "answered", "1000 bytes"]);
    }
}
