use super::{IMAGE_TOKEN_INDEX, MultimodalError};
use crate::config::{ModelConfig, MultimodalConfig, PaddingSide};
use crate::nn::IGNORE_INDEX;

/// One sample before splicing, without padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpliceRow {
    /// Token ids, [`IMAGE_TOKEN_INDEX`] where a picture stands.
    pub input_ids: Vec<i64>,
    /// One label an id, [`IGNORE_INDEX`] = no loss; `None` where there is nothing to learn.
    pub labels: Option<Vec<i64>>,
    /// Index of each picture in the batch's pictures, in the order of the marks.
    pub images: Vec<usize>,
}

/// What all rows share.
#[derive(Debug, Clone, Copy)]
pub struct SpliceSettings {
    /// Decoder tokens that stand for one picture.
    pub image_tokens: usize,
    /// Rows are cut to this many tokens after splicing.
    pub max_length: usize,
    /// Where short rows are filled up.
    pub padding_side: PaddingSide,
    /// Tokens that the decoder knows.
    pub vocab_size: usize,
}

impl SpliceSettings {
    /// As the model `config` has them.
    pub fn of(config: &ModelConfig) -> Self {
        Self {
            image_tokens: config.multimodal.as_ref().map_or(0, MultimodalConfig::num_image_tokens),
            max_length: config.max_length,
            padding_side: config.padding_side,
            vocab_size: config.llm.vocab_size,
        }
    }
}

/// Where one decoder input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// The embedding of this token.
    Text(i64),
    /// A token of a picture.
    Image {
        /// Index in the batch's pictures.
        image: usize,
        /// Index in that picture's tokens.
        token: usize,
    },
    /// Nothing: a zero vector.
    Padding,
}

/// A batch after splicing, cutting and padding, as plain numbers: rows of equal length throughout.
///
/// Follows `prepare_inputs_labels_for_multimodal` of the reference, but a sample may hold several pictures
/// and takes only its own, and a text-only sample costs none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplicePlan {
    /// Where each decoder input comes from.
    pub sources: Vec<Vec<TokenSource>>,
    /// Labels; [`IGNORE_INDEX`] on pictures and padding.
    pub labels: Vec<Vec<i64>>,
    /// Position of each token in its own sample; 0 at padding.
    pub positions: Vec<Vec<usize>>,
    /// False for padding.
    pub mask: Vec<Vec<bool>>,
    /// Tokens that were cut off each row for its length.
    pub truncated: Vec<usize>,
}

impl SplicePlan {
    /// Plans a batch.
    ///
    /// # Errors
    /// [`MultimodalError`] where marks and pictures, ids and labels, or ids and vocabulary do not fit.
    pub fn new(rows: &[SpliceRow], settings: SpliceSettings) -> Result<Self, MultimodalError> {
        let mut spliced = Vec::with_capacity(rows.len());
        let mut truncated = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            let mut tokens = splice_row(index, row, settings)?;
            truncated.push(tokens.len().saturating_sub(settings.max_length));
            tokens.truncate(settings.max_length);
            spliced.push(tokens);
        }
        let len = spliced.iter().map(Vec::len).max().unwrap_or(0);
        let mut plan = Self {
            sources: Vec::new(),
            labels: Vec::new(),
            positions: Vec::new(),
            mask: Vec::new(),
            truncated,
        };
        for tokens in spliced {
            let (real, padding) = (tokens.len(), len - tokens.len());
            let (sources, labels): (Vec<_>, Vec<_>) = tokens.into_iter().unzip();
            let side = settings.padding_side;
            plan.sources.push(pad(sources, TokenSource::Padding, padding, side));
            plan.labels.push(pad(labels, IGNORE_INDEX, padding, side));
            plan.positions.push(pad((0..real).collect(), 0, padding, side));
            plan.mask.push(pad(vec![true; real], false, padding, side));
        }
        Ok(plan)
    }

    /// Number of rows.
    pub fn batch(&self) -> usize {
        self.sources.len()
    }

    /// Length of every row.
    pub fn len(&self) -> usize {
        self.sources.first().map_or(0, Vec::len)
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Column of each row's last real token.
    pub fn last_columns(&self) -> Vec<usize> {
        self.mask.iter().map(|row| row.iter().rposition(|&real| real).unwrap_or(0)).collect()
    }
}

type Spliced = Vec<(TokenSource, i64)>;

fn splice_row(index: usize, row: &SpliceRow, settings: SpliceSettings) -> Result<Spliced, MultimodalError> {
    if row.input_ids.is_empty() {
        return Err(MultimodalError::EmptyRow { row: index });
    }
    if let Some(labels) = row.labels.as_ref().filter(|labels| labels.len() != row.input_ids.len()) {
        let (ids, labels) = (row.input_ids.len(), labels.len());
        return Err(MultimodalError::LabelCount { row: index, ids, labels });
    }
    let placeholders = row.input_ids.iter().filter(|&&id| id == IMAGE_TOKEN_INDEX).count();
    if placeholders != row.images.len() {
        return Err(MultimodalError::ImageCount { row: index, placeholders, images: row.images.len() });
    }
    let mut images = row.images.iter();
    let mut out = Vec::with_capacity(row.input_ids.len() + placeholders * settings.image_tokens);
    for (position, &id) in row.input_ids.iter().enumerate() {
        if id == IMAGE_TOKEN_INDEX {
            let image = *images.next().expect("counted above");
            let tokens = (0..settings.image_tokens).map(|token| TokenSource::Image { image, token });
            out.extend(tokens.map(|source| (source, IGNORE_INDEX)));
        } else if usize::try_from(id).is_ok_and(|id| id < settings.vocab_size) {
            let label = row.labels.as_ref().map_or(IGNORE_INDEX, |labels| labels[position]);
            out.push((TokenSource::Text(id), label));
        } else {
            let vocab_size = settings.vocab_size;
            return Err(MultimodalError::TokenOutOfRange { row: index, id, vocab_size });
        }
    }
    Ok(out)
}

fn pad<T: Clone>(mut values: Vec<T>, fill: T, count: usize, side: PaddingSide) -> Vec<T> {
    match side {
        PaddingSide::Right => {
            values.extend(std::iter::repeat_n(fill, count));
            values
        }
        PaddingSide::Left => {
            let mut padded = vec![fill; count];
            padded.append(&mut values);
            padded
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(image_tokens: usize, max_length: usize, padding_side: PaddingSide) -> SpliceSettings {
        SpliceSettings { image_tokens, max_length, padding_side, vocab_size: 100 }
    }

    fn row(input_ids: &[i64], images: &[usize]) -> SpliceRow {
        SpliceRow { input_ids: input_ids.to_vec(), labels: Some(input_ids.to_vec()), images: images.to_vec() }
    }

    #[test]
    fn a_picture_between_text() {
        let rows = [row(&[1, IMAGE_TOKEN_INDEX, 5], &[7]), row(&[2], &[])];
        let plan = SplicePlan::new(&rows, settings(2, 99, PaddingSide::Left)).unwrap();
        let image = |token| TokenSource::Image { image: 7, token };
        assert_eq!(plan.sources[0], [TokenSource::Text(1), image(0), image(1), TokenSource::Text(5)]);
        assert_eq!(plan.labels[0], [1, IGNORE_INDEX, IGNORE_INDEX, 5]);
        assert_eq!(plan.sources[1][3], TokenSource::Text(2));
        assert_eq!(plan.positions[1], [0, 0, 0, 0]);
        assert_eq!(plan.mask[1], [false, false, false, true]);
        assert_eq!(plan.last_columns(), [3, 3]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let fails = |row: SpliceRow| SplicePlan::new(&[row], settings(2, 9, PaddingSide::Right)).unwrap_err();
        let marks = fails(row(&[1, IMAGE_TOKEN_INDEX], &[]));
        assert_eq!(marks, MultimodalError::ImageCount { row: 0, placeholders: 1, images: 0 });
        let pictures = fails(row(&[1], &[0]));
        assert_eq!(pictures, MultimodalError::ImageCount { row: 0, placeholders: 0, images: 1 });
        assert_eq!(
            fails(row(&[100], &[])),
            MultimodalError::TokenOutOfRange { row: 0, id: 100, vocab_size: 100 }
        );
        assert_eq!(fails(row(&[], &[])), MultimodalError::EmptyRow { row: 0 });
        let labels = SpliceRow { labels: Some(vec![1]), ..row(&[1, 2], &[]) };
        assert_eq!(fails(labels), MultimodalError::LabelCount { row: 0, ids: 2, labels: 1 });
    }

    prop_compose! {
        /// A row of text ids with pictures at random places.
        fn any_row()(kinds in prop::collection::vec((0u8..5, 0i64..100), 1..20)) -> SpliceRow {
            let input_ids: Vec<i64> =
                kinds.iter().map(|&(kind, id)| if kind == 0 { IMAGE_TOKEN_INDEX } else { id }).collect();
            let count = input_ids.iter().filter(|&&id| id == IMAGE_TOKEN_INDEX).count();
            SpliceRow { labels: Some(input_ids.clone()), input_ids, images: (0..count).collect() }
        }
    }

    proptest! {
        /// Every row is its own splice cut to the limit, whatever its batch mates, and padding is invisible.
        #[test]
        fn rows_are_independent_and_complete(
            rows in prop::collection::vec(any_row(), 1..5),
            image_tokens in 1usize..6,
            max_length in 1usize..40,
            left: bool,
        ) {
            let side = if left { PaddingSide::Left } else { PaddingSide::Right };
            let settings = settings(image_tokens, max_length, side);
            let plan = SplicePlan::new(&rows, settings).unwrap();
            for (index, row) in rows.iter().enumerate() {
                let marks = row.images.len();
                let full = row.input_ids.len() - marks + marks * image_tokens;
                let alone = SplicePlan::new(std::slice::from_ref(row), settings).unwrap();
                let real: Vec<usize> = (0..plan.len()).filter(|&i| plan.mask[index][i]).collect();
                prop_assert_eq!(real.len(), full.min(max_length));
                prop_assert_eq!(plan.truncated[index], full - real.len());
                // Real tokens are contiguous, on the side away from the padding.
                let start = if left { plan.len() - real.len() } else { 0 };
                prop_assert_eq!(&real, &(start..start + real.len()).collect::<Vec<_>>());
                let part = start..start + real.len();
                prop_assert_eq!(&plan.sources[index][part.clone()], &alone.sources[0][..]);
                prop_assert_eq!(&plan.labels[index][part.clone()], &alone.labels[0][..]);
                prop_assert_eq!(&plan.positions[index][part], &(0..real.len()).collect::<Vec<_>>()[..]);
                for column in (0..plan.len()).filter(|i| !plan.mask[index][*i]) {
                    prop_assert_eq!(plan.sources[index][column], TokenSource::Padding);
                    prop_assert_eq!(plan.labels[index][column], IGNORE_INDEX);
                }
            }
        }
    }
}
