//! Rows of the index: the distinct records that the rules kept, by place.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanBuilder, FixedSizeBinaryBuilder, RecordBatch, UInt32Array, UInt32Builder};
use arrow::compute::take;
use arrow::datatypes::UInt64Type;
use forebay_schemas::record;

use crate::clean::KEPT;
use crate::dedup::ledger::{COLUMNS, Judged};
use crate::dedup::{Fate, Splitter, digest};
use crate::error::Result;
use crate::stage::Part;

/// Makes the rows; the ledger must be offered in order, as the place of a content is counted.
pub(crate) struct Entries {
    parts: Vec<Part>,
    /// Number of the first task of this job among all that the manifest lists.
    first_task: u32,
    /// Tasks of the job, in order; their places count.
    tasks: Vec<usize>,
    part: usize,
    /// Contents so far in the part.
    contents: u32,
    splitter: Arc<Splitter>,
}

impl Entries {
    /// For the records of these parts, whose tasks follow `first_task` others.
    pub(crate) fn new(parts: &[Part], first_task: u32, splitter: &Arc<Splitter>) -> Self {
        let mut tasks: Vec<usize> = parts.iter().map(|part| part.task).collect();
        tasks.dedup();
        Self { parts: parts.to_vec(), first_task, tasks, part: 0, contents: 0, splitter: Arc::clone(splitter) }
    }

    /// The rows of some records, whose sketches come after the columns of the ledger.
    pub(crate) fn of(&mut self, judged: &Judged) -> Result<RecordBatch> {
        let batch = &judged.batch;
        let ordinals = batch.column(0).as_primitive::<UInt64Type>().values();
        let (from_ids, verdicts) = (batch.column(3).as_fixed_size_binary(), batch.column(4).as_string::<i32>());
        let keys = batch.column(1).as_string::<i32>();
        let (mut entered, mut survivors, mut validation) = (Vec::new(), FixedSizeBinaryBuilder::new(32), BooleanBuilder::new());
        let mut places = [UInt32Builder::new(), UInt32Builder::new(), UInt32Builder::new()];
        for (row, ordinal) in ordinals.iter().enumerate() {
            while self.parts[self.part].first + self.parts[self.part].rows <= *ordinal {
                self.part += 1;
                self.contents = 0;
            }
            if verdicts.value(row) != KEPT {
                continue;
            }
            let place = self.contents;
            self.contents += 1;
            let decision = judged.decisions[row].as_ref();
            if decision.is_some_and(|decision| decision.is_copy) {
                continue;
            }
            entered.push(row as u32);
            validation.append_value(self.splitter.fate(&digest(from_ids.value(row))?, keys.value(row)) == Fate::Validation);
            match decision {
                Some(decision) => survivors.append_value(decision.survivor.as_bytes())?,
                None => survivors.append_null(),
            }
            let part = &self.parts[self.part];
            let task = self.tasks.partition_point(|task| *task < part.task) as u32;
            let values = [self.first_task + task, part.part as u32, place];
            places.iter_mut().zip(values).for_each(|(column, value)| column.append_value(value));
        }
        let entered = UInt32Array::from(entered);
        let of = |column: usize| take(batch.column(column), &entered, None);
        let mut columns: Vec<ArrayRef> = vec![of(3)?, of(COLUMNS.len())?, Arc::new(survivors.finish())];
        columns.extend(places.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef));
        columns.extend([of(7)?, of(8)?, Arc::new(validation.finish()), of(10)?]);
        Ok(RecordBatch::try_new(record::index(), columns)?)
    }
}
