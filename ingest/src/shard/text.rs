//! Text: sample, encode and pack the kept records.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::{col, lit};
use forebay_schemas::dataset::TableRef;
use forebay_schemas::pipeline::PackMethod;
use forebay_schemas::{ids, record};
use forebay_tokens::{Encoder, Tokenizer};
use futures::{StreamExt, TryStreamExt};

use super::amend::{Piece, parent};
use super::pack::Packer;
use super::{Batches, Kept, Target, fate_function, in_order, session, table_name, with_fate};
use crate::dedup::{Fate, digest};
use crate::error::{Error, Kind, Result};
use crate::stage::{ORDINAL, Part, Stage};

const ROWS_AT_A_TIME: usize = 1024;

/// Columns of an encoded document; tokens are little-endian numbers of [`record::id_bytes`].
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("record", DataType::UInt64, false),
        Field::new("id", DataType::FixedSizeBinary(32), true),
        Field::new("tokens", DataType::LargeBinary, false),
    ]))
}

/// Training documents in the order of ids until `sample_bytes` of raw text are reached.
pub(crate) async fn sample(kept: Kept<'_>, sample_bytes: u64) -> Result<Vec<String>> {
    let Kept { engine, cleaned, ledger, .. } = kept;
    let session = engine.session(8192);
    let table = session.read_table(cleaned.verdicts(&[ORDINAL, "bytes", "id"], engine.threads())?)?;
    let sorted = with_fate(table, &ledger.fates, Fate::Train)?.sort(vec![col("id").sort(true, false), col(ORDINAL).sort(true, false)])?;
    let mut batches = engine.stream(sorted).await?;
    let mut left = sample_bytes;
    let mut chosen: HashMap<u64, usize> = HashMap::new();
    while let Some(batch) = batches.try_next().await?.filter(|_| left > 0) {
        let (ordinals, bytes) = (batch.column(0).as_primitive::<UInt64Type>(), batch.column(1).as_primitive::<UInt64Type>());
        for (ordinal, bytes) in ordinals.values().iter().zip(bytes.values()) {
            if left > 0 {
                chosen.insert(*ordinal, chosen.len());
                left = left.saturating_sub(*bytes);
            }
        }
    }
    drop(batches);
    let table = super::session(engine).read_table(cleaned.contents(&[ORDINAL, "text"], engine.threads())?)?;
    let mut batches = engine.stream(table).await?;
    let mut texts = Vec::with_capacity(chosen.len());
    while let Some(batch) = batches.try_next().await? {
        let (ordinals, column) = (batch.column(0).as_primitive::<UInt64Type>(), batch.column(1).as_string::<i64>());
        for row in 0..batch.num_rows() {
            if let Some(place) = chosen.get(&ordinals.value(row)) {
                texts.push((*place, column.value(row).to_owned()));
            }
        }
    }
    texts.sort_unstable();
    Ok(texts.into_iter().map(|(_, text)| text).collect())
}

/// Encodes the kept documents of all tasks that are not done yet.
pub(crate) async fn encode(kept: Kept<'_>, encoded: &Stage, tokenizer: &Tokenizer, width: usize) -> Result<()> {
    let Kept { engine, cleaned, ledger, progress, .. } = kept;
    let done: HashSet<usize> = encoded.done().await?.iter().map(|part| part.task).collect();
    let encoders = Arc::new(Encoders { tokenizer: tokenizer.clone(), idle: Mutex::default() });
    let one = |parts: &[Part]| {
        let (encoders, task) = (Arc::clone(&encoders), parts[0].task);
        let table = cleaned.contents.table(parts, &[ORDINAL, "id", "text"], 1);
        async move {
            let fate = fate_function(Arc::clone(&ledger.fates)).call(vec![col(ORDINAL)]);
            let tokens = function(encoders, width).call(vec![col("text")]);
            let columns = vec![col(ORDINAL).alias("record"), col("id"), tokens.alias("tokens")];
            let plan = session(engine).read_table(table?)?.filter(fate.not_eq(lit(Fate::LeftOut as u8)))?.select(columns)?;
            let (schema, progress) = (Arc::clone(encoded.schema()), Arc::clone(progress));
            let mut writer = encoded.writer(task)?;
            let work = engine.run(async move {
                let mut batches = plan.execute_stream().await?;
                while let Some(batch) = batches.try_next().await? {
                    writer.append(&arrow::array::RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec())?).await?;
                    progress.advance(batch.num_rows() as u64);
                }
                writer.finish().await
            });
            work.await
        }
    };
    let tasks = kept.cleaned.content_parts.chunk_by(|a, b| a.task == b.task);
    let missing: Vec<_> = tasks.filter(|parts| !done.contains(&parts[0].task)).map(one).collect();
    futures::stream::iter(missing).buffer_unordered(engine.threads()).try_collect().await
}

/// What packing a split gives.
pub(crate) struct Packed {
    pub(crate) table: TableRef,
    pub(crate) documents: u64,
    /// Times each token occurs, filling left out.
    pub(crate) counts: Vec<u64>,
    pub(crate) padding_tokens: u64,
    pub(crate) split_documents: u64,
    /// Tokens of each document, its end left out, by ordinal.
    pub(crate) lengths: Vec<(u32, u32)>,
}

/// How tokens are cut.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) method: PackMethod,
    /// Length of a sample.
    pub(crate) length: u32,
    /// The token that ends a document.
    pub(crate) end: u32,
    /// Number of token ids.
    pub(crate) vocabulary: u32,
    /// Bytes of an id in the table.
    pub(crate) id_bytes: usize,
}

/// What goes into a table before the records of the job: pieces of documents whose row was deleted, and documents that
/// are kept again, as tokens.
#[derive(Default)]
pub(crate) struct Before {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) revived: Vec<(u64, Vec<u32>)>,
}

/// Packs the documents of one split to its table.
pub(crate) async fn pack(kept: Kept<'_>, encoded: &Stage, before: Before, fate: Fate, cut: Cut, target: &Target<'_>) -> Result<Packed> {
    let Kept { engine, cleaned, ledger, .. } = kept;
    // One partition: whoever takes the sorted rows is slower than the sort, and two sorts would share the memory.
    let parts = encoded.whole(cleaned.tasks).await?;
    let table = session(engine).read_table(encoded.table(&parts, &["record", "id", "tokens"], 1)?)?;
    let table = table.select(vec![col("record").alias(ORDINAL), col("id"), col("tokens")])?;
    let plan = in_order(with_fate(table, &ledger.fates, fate)?, kept.shard)?;
    let progress = Arc::clone(kept.progress);
    let make = |rows: Batches| async move {
        let mut packer = Packer::new(cut);
        before.pieces.iter().for_each(|(document, tokens, starts)| packer.push_piece(*document, tokens, *starts));
        before.revived.iter().for_each(|(document, tokens)| packer.push(*document, tokens));
        let mut lengths = Vec::new();
        let mut tokens = Vec::new();
        let mut batches = plan.execute_stream().await?;
        while let Some(batch) = batches.try_next().await? {
            let (ordinals, ids) = (batch.column(0).as_primitive::<UInt64Type>(), batch.column(1).as_fixed_size_binary());
            let stored = batch.column(2).as_binary::<i64>();
            for row in 0..batch.num_rows() {
                read_tokens(stored.value(row), record::id_bytes(cut.vocabulary), &mut tokens);
                packer.push(digest(ids.value(row))?.as_u64(), &tokens);
                lengths.push((ordinals.value(row) as u32, tokens.len() as u32));
                if packer.ready() >= ROWS_AT_A_TIME {
                    rows.send(packer.take()?).await?;
                }
            }
            progress.advance(batch.num_rows() as u64);
        }
        packer.fill();
        if packer.ready() > 0 {
            rows.send(packer.take()?).await?;
        }
        let sums = (packer.padding_tokens(), packer.split_documents());
        Ok((packer.documents(), packer.counts().to_vec(), sums, lengths))
    };
    let (table, (documents, counts, (padding_tokens, split_documents), lengths)) =
        target.write(engine, table_name(fate), record::sequences(cut.length as usize, cut.id_bytes), make).await?;
    Ok(Packed { table, documents, counts, padding_tokens, split_documents, lengths })
}

/// Bytes of an id in the tables of this version: as many as in those of the one that it adds to.
pub(crate) async fn id_bytes(kept: Kept<'_>, vocabulary: u32, target: &Target<'_>) -> Result<usize> {
    let Some(known) = kept.known else { return Ok(record::id_bytes(vocabulary)) };
    let train = parent(&known.manifest.tables, record::TRAIN)?;
    let train = target.dataset.tables(train.format).open(train).await?;
    let width = ids::width(&train.schema()).map(|(_, bytes)| bytes);
    width.ok_or_else(|| Error::new(Kind::Corrupt, "the version before has no token ids in its table `train`"))
}

/// Entropy of the frequencies in nats.
pub(crate) fn entropy_nats(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    let terms = counts.iter().filter(|count| **count > 0).map(|count| {
        let share = *count as f64 / total as f64;
        -share * share.ln()
    });
    terms.sum()
}

/// Encoders that no thread uses right now, with the words they remember.
struct Encoders {
    tokenizer: Tokenizer,
    idle: Mutex<Vec<Encoder>>,
}

fn function(encoders: Arc<Encoders>, width: usize) -> ScalarUDF {
    let encode = move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let idle = encoders.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut encoder = idle.unwrap_or_else(|| Encoder::new(encoders.tokenizer.clone()));
        let tokens = encode_column(&arrays[0], width, &mut encoder)?;
        encoders.idle.lock().unwrap_or_else(PoisonError::into_inner).push(encoder);
        Ok(ColumnarValue::Array(tokens))
    };
    create_udf("encode", vec![DataType::LargeUtf8], DataType::LargeBinary, Volatility::Immutable, Arc::new(encode))
}

fn encode_column(texts: &ArrayRef, width: usize, encoder: &mut Encoder) -> Result<ArrayRef> {
    let texts = texts.as_string::<i64>();
    let mut tokens = LargeBinaryBuilder::new();
    let mut bytes = Vec::new();
    for row in 0..texts.len() {
        bytes.clear();
        let ids = encoder.encode(if texts.is_valid(row) { texts.value(row) } else { "" });
        for id in ids.map_err(|error| Error::internal("a record", error))? {
            bytes.extend_from_slice(&id.to_le_bytes()[..width]);
        }
        tokens.append_value(&bytes);
    }
    Ok(Arc::new(tokens.finish()))
}

fn read_tokens(bytes: &[u8], width: usize, tokens: &mut Vec<u32>) {
    tokens.clear();
    tokens.extend(bytes.chunks_exact(width).map(|id| id.iter().rev().fold(0, |id, byte| id << 8 | u32::from(*byte))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_of_even_frequencies_is_the_logarithm_of_their_number() {
        assert!((entropy_nats(&[5; 8]) - 8f64.ln()).abs() < 1e-12);
        assert_eq!(entropy_nats(&[0, 7, 0]), 0.0);
        assert_eq!(entropy_nats(&[]), 0.0);
    }

    #[test]
    fn stored_tokens_come_back_in_both_widths() {
        let mut tokens = Vec::new();
        read_tokens(&[1, 0, 0xFF, 0xFF], 2, &mut tokens);
        assert_eq!(tokens, [1, 65_535]);
        read_tokens(&[1, 0, 1, 0], 4, &mut tokens);
        assert_eq!(tokens, [65_537]);
        assert_eq!((record::id_bytes(65_536), record::id_bytes(65_537)), (2, 4));
    }
}
