//! Rows of the index: the distinct records that the rules kept, by place.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryBuilder, FixedSizeBinaryBuilder, RecordBatch, UInt32Builder};
use arrow::datatypes::UInt64Type;
use forebay_schemas::record;

use crate::clean::KEPT;
use crate::dedup::ledger::Judged;
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
}

impl Entries {
    /// For the records of these parts, whose tasks follow `first_task` others.
    pub(crate) fn new(parts: &[Part], first_task: u32) -> Self {
        let mut tasks: Vec<usize> = parts.iter().map(|part| part.task).collect();
        tasks.dedup();
        Self { parts: parts.to_vec(), first_task, tasks, part: 0, contents: 0 }
    }

    /// The rows of some records.
    pub(crate) fn of(&mut self, judged: &Judged) -> Result<RecordBatch> {
        let batch = &judged.batch;
        let ordinals = batch.column(0).as_primitive::<UInt64Type>().values();
        let (from_ids, verdicts) = (batch.column(3).as_fixed_size_binary(), batch.column(4).as_string::<i32>());
        let sketches = batch.column(10).as_binary::<i32>();
        let (mut ids, mut kept, mut survivors) = (FixedSizeBinaryBuilder::new(32), BinaryBuilder::new(), FixedSizeBinaryBuilder::new(32));
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
            ids.append_value(from_ids.value(row))?;
            kept.append_value(sketches.value(row));
            match decision {
                Some(decision) => survivors.append_value(decision.survivor.as_bytes())?,
                None => survivors.append_null(),
            }
            let part = &self.parts[self.part];
            let task = self.tasks.partition_point(|task| *task < part.task) as u32;
            let values = [self.first_task + task, part.part as u32, place];
            places.iter_mut().zip(values).for_each(|(column, value)| column.append_value(value));
        }
        let mut columns: Vec<ArrayRef> = vec![Arc::new(ids.finish()), Arc::new(kept.finish()), Arc::new(survivors.finish())];
        columns.extend(places.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef));
        Ok(RecordBatch::try_new(record::index(), columns)?)
    }
}
