//! What becomes of rows, and how a run says it.

use forebay_schemas::dataset::{DatasetManifest, Modality};
use forebay_schemas::run::{Augment, Model, Pixels, Run, Spans, Tokenizing};
use forebay_store::{Dataset, Location};
use forebay_tokens::Tokenizer;

use crate::error::{Error, Result};

/// Larger files are no tokenizers; those with a quarter of a million tokens take some 20 MiB.
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;

/// What becomes of the rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Transform {
    /// Packed token sequences, as they are.
    Tokens {
        /// What of them the model does not see.
        masking: Option<Masking>,
    },
    /// Documents are made tokens, of which a sample shows as many as it has room for, at a random place.
    Documents {
        /// By which tokens are made.
        tokenizer: Tokenizer,
        /// Tokens in a sample.
        length: u32,
        /// What of them the model does not see.
        masking: Option<Masking>,
    },
    /// Images are decoded, turned upright, cropped, resized and normalised.
    Images {
        /// Side of the square sample, in pixels.
        size: u32,
        /// Mean of each channel, in 0…1, which becomes 0.
        mean: [f64; 3],
        /// Standard deviation of each channel, which becomes 1.
        std: [f64; 3],
        /// How a batch holds its pixels; as bytes they are not normalised.
        format: Pixels,
        /// Random crop, flip, rotation and colours; none shows the centre.
        augment: Option<Augment>,
    },
}

/// Which tokens are hidden, and by what.
#[derive(Clone, Debug, PartialEq)]
pub struct Masking {
    /// How they are drawn, and what counts for the loss.
    pub spans: Spans,
    /// Id of the token in the place of a hidden one.
    pub mask: u32,
}

impl Transform {
    /// What a training run makes of its dataset: the model's input size, the statistics that ingest measured, the run's
    /// augmentation and tokenizer. Reads the tokenizer where one is needed.
    ///
    /// `Invalid` if the model or a setting is for another kind of samples, nothing was measured, or the tokenizer is not the one
    /// that the run names or cannot do what is asked of it.
    pub async fn training(run: &Run, dataset: &Dataset, manifest: &DatasetManifest) -> Result<Self> {
        let size = match (&run.model, manifest.modality) {
            (Model::Gpt { .. }, Modality::Text) => return Self::text(run, dataset, manifest).await,
            (Model::Resnet { image_size, .. } | Model::Vit { image_size, .. } | Model::Mlp { image_size, .. }, Modality::Images) => {
                *image_size
            }
            (Model::Gpt { .. }, found) => return Err(unfit(found, "Text for a gpt")),
            (Model::Resnet { .. } | Model::Vit { .. } | Model::Mlp { .. }, found) => {
                return Err(unfit(found, "Images for a resnet, vit or mlp"));
            }
        };
        for (key, given) in [("augment.spans", run.augment.spans.is_some()), ("tokenizer", run.tokenizer.is_some())] {
            if given {
                return Err(Error::Invalid(format!("setting `{key}`: found it for a dataset of images, expected one of text")));
            }
        }
        let statistics = manifest.statistics.channel_mean.zip(manifest.statistics.channel_std);
        let (mean, std) = statistics.ok_or_else(|| {
            Error::Invalid(format!(
                "dataset version {}: found no channel mean and std, expected those of its training pixels",
                manifest.version
            ))
        })?;
        Ok(Self::Images { size, mean, std, format: run.batch.pixels, augment: Some(run.augment.clone()) })
    }

    async fn text(run: &Run, dataset: &Dataset, manifest: &DatasetManifest) -> Result<Self> {
        let spans = run.augment.spans.as_ref();
        match (&manifest.tokenizer, &run.tokenizer) {
            (Some(stored), None) => {
                let Some(spans) = spans else { return Ok(Self::Tokens { masking: None }) };
                let bytes = dataset.get_object(&stored.object).await;
                let origin = format!("of dataset version {}", manifest.version);
                let bytes = bytes.map_err(|source| Error::Read { what: format!("tokenizer {origin}"), source })?;
                let tokenizer = Tokenizer::with_end(&bytes, stored.end_of_document);
                let tokenizer = tokenizer.map_err(|error| unreadable(&origin, &error))?;
                Ok(Self::Tokens { masking: Some(Masking::new(spans, &tokenizer, &origin)?) })
            }
            (None, Some(settings)) => {
                let tokenizer = read(settings).await?;
                let masking = spans.map(|spans| Masking::new(spans, &tokenizer, &format!("`{}`", settings.file))).transpose()?;
                Ok(Self::Documents { tokenizer, length: settings.sequence_length, masking })
            }
            (Some(_), Some(_)) => Err(Error::Invalid(format!(
                "setting `tokenizer`: found it for dataset version {}, which holds tokens; expected a dataset of documents",
                manifest.version
            ))),
            (None, None) => Err(Error::Invalid(format!(
                "dataset version {}: found documents, expected tokens, or the setting `tokenizer.file` by which they are made",
                manifest.version
            ))),
        }
    }

    /// By which a run makes tokens of documents.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        match self {
            Self::Documents { tokenizer, .. } => Some(tokenizer),
            _ => None,
        }
    }
}

impl Masking {
    fn new(spans: &Spans, tokenizer: &Tokenizer, origin: &str) -> Result<Self> {
        let vocabulary = tokenizer.vocabulary();
        let mask = match spans.mask_id {
            Some(id) if id < vocabulary => id,
            Some(id) => {
                return Err(Error::Invalid(format!("setting `augment.spans.mask_id`: found {id}, expected less than {vocabulary}")));
            }
            None => tokenizer.mask().ok_or_else(|| {
                Error::Invalid(format!(
                    "setting `augment.spans`: tokenizer {origin} has no token for what is hidden, expected one of {}: ingest with \
                     `tokenizer.mask = true`, or name an id that is not in use by `augment.spans.mask_id`",
                    Tokenizer::mask_names()
                ))
            })?,
        };
        Ok(Self { spans: spans.clone(), mask })
    }
}

/// Notes in the settings of a run which tokenizer it uses, if they name a file and do not say what is in it.
pub async fn pin(run: &mut Run) -> Result<()> {
    if let Some(settings) = run.tokenizer.as_mut().filter(|settings| settings.sha256.is_none()) {
        settings.sha256 = Some(read(settings).await?.sha256().to_owned());
    }
    Ok(())
}

/// The tokenizer that settings name.
async fn read(settings: &Tokenizing) -> Result<Tokenizer> {
    let Tokenizing { file, sha256, .. } = settings;
    let failed = |source| Error::Read { what: format!("setting `tokenizer.file`: `{file}` cannot be read"), source };
    let location = Location::open(file).await.map_err(failed)?;
    let size = location.head("").await.map_err(failed)?.map(|meta| meta.size);
    let size = size.ok_or_else(|| Error::Invalid(format!("setting `tokenizer.file`: found no `{file}`, expected a tokenizer.json")))?;
    if size > MAX_TOKENIZER_BYTES {
        return Err(Error::Invalid(format!(
            "setting `tokenizer.file`: found `{file}` of {size} bytes, expected at most {MAX_TOKENIZER_BYTES}"
        )));
    }
    let tokenizer = Tokenizer::from_json(&location.get("").await.map_err(failed)?);
    let tokenizer = tokenizer.map_err(|error| unreadable(&format!("`{file}`"), &error))?;
    match sha256 {
        Some(expected) if *expected != tokenizer.sha256() => Err(Error::Invalid(format!(
            "setting `tokenizer.file`: found `{file}` with SHA-256 {}, expected {expected}, with which the run began",
            tokenizer.sha256()
        ))),
        _ => Ok(tokenizer),
    }
}

fn unreadable(origin: &str, error: &forebay_tokens::Error) -> Error {
    Error::Invalid(format!("tokenizer {origin}: {error}"))
}

pub(super) fn unfit(found: Modality, expected: &str) -> Error {
    Error::Invalid(format!("dataset: found modality {found:?}, expected {expected}"))
}
