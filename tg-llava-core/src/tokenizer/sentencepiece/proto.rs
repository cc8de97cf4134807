//! The parts of SentencePiece's `ModelProto` that a tokenizer needs, read from the protobuf wire format.

use super::super::TokenizerError;
use std::path::Path;

/// What a piece is for (`SentencePiece.Type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// One entry of the vocabulary; its id is its place in the list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub text: String,
    pub score: f32,
    pub kind: PieceKind,
}

/// How pieces are found (`TrainerSpec.ModelType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Unigram,
    Bpe,
}

/// A SentencePiece model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SentencePieceModel {
    pub pieces: Vec<Piece>,
    pub algorithm: Algorithm,
    /// Unicode normalization as a compiled table; empty for none.
    pub charsmap: Vec<u8>,
    pub add_dummy_prefix: bool,
    pub remove_extra_whitespaces: bool,
}

impl SentencePieceModel {
    pub fn read(path: &Path) -> Result<Self, TokenizerError> {
        let bytes = std::fs::read(path).map_err(|e| TokenizerError::io(path, e))?;
        let bad =
            |reason: String| TokenizerError::malformed(path, format!("not a SentencePiece model: {reason}"));
        let model = Self::parse(&bytes).map_err(bad)?;
        if model.pieces.is_empty() { Err(bad("it holds no pieces".into())) } else { Ok(model) }
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut model = Self {
            pieces: Vec::new(),
            algorithm: Algorithm::Unigram,
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
        };
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(piece)) => model.pieces.push(parse_piece(piece)?),
                (2, Value::Bytes(trainer)) => model.algorithm = parse_algorithm(trainer)?,
                (3, Value::Bytes(normalizer)) => model.parse_normalizer(normalizer)?,
                _ => {}
            }
        }
        Ok(model)
    }

    fn parse_normalizer(&mut self, bytes: &[u8]) -> Result<(), String> {
        for field in Fields(bytes) {
            match field? {
                (2, Value::Bytes(map)) => self.charsmap = map.to_vec(),
                (3, Value::Varint(on)) => self.add_dummy_prefix = on != 0,
                (4, Value::Varint(on)) => self.remove_extra_whitespaces = on != 0,
                _ => {}
            }
        }
        Ok(())
    }

    /// The id of the piece for unknown text.
    pub fn unknown(&self) -> Option<usize> {
        self.pieces.iter().position(|piece| piece.kind == PieceKind::Unknown)
    }
}

fn parse_piece(bytes: &[u8]) -> Result<Piece, String> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(text)) => {
                piece.text = String::from_utf8(text.to_vec()).map_err(|_| "a piece is not UTF-8")?;
            }
            (2, Value::Fixed32(bits)) => piece.score = f32::from_bits(bits),
            (3, Value::Varint(kind)) => {
                piece.kind = match kind {
                    1 => PieceKind::Normal,
                    2 => PieceKind::Unknown,
                    3 => PieceKind::Control,
                    4 => PieceKind::UserDefined,
                    5 => PieceKind::Unused,
                    6 => PieceKind::Byte,
                    other => return Err(format!("piece type {other} is unknown")),
                }
            }
            _ => {}
        }
    }
    Ok(piece)
}

fn parse_algorithm(bytes: &[u8]) -> Result<Algorithm, String> {
    let mut algorithm = Algorithm::Unigram;
    for field in Fields(bytes) {
        if let (3, Value::Varint(kind)) = field? {
            algorithm = match kind {
                1 => Algorithm::Unigram,
                2 => Algorithm::Bpe,
                other => return Err(format!("model type {other}; only Unigram (1) and BPE (2) are served")),
            };
        }
    }
    Ok(algorithm)
}

/// One field's content.
enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The numbered fields of one protobuf message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (head, tail) = self.0.split_at_checked(count).ok_or("the file is cut short")?;
        self.0 = tail;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number has more than 64 bits".into())
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), String> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|e| e.to_string())?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            other => return Err(format!("wire type {other} is unknown")),
        };
        Ok((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// pieces "<unk>" (unknown) and "▁a" (score -1.5); BPE; no dummy prefix.
    const MODEL: &[u8] = &[
        0x0a, 9, 0x0a, 5, b'<', b'u', b'n', b'k', b'>', 0x18, 2, // piece 0
        0x0a, 11, 0x0a, 4, 0xe2, 0x96, 0x81, b'a', 0x15, 0, 0, 0xc0, 0xbf, // piece 1
        0x12, 2, 0x18, 2, // trainer: BPE
        0x1a, 2, 0x18, 0, // normalizer: add_dummy_prefix = false
    ];

    #[test]
    fn pieces_and_flags_are_read() {
        let model = SentencePieceModel::parse(MODEL).unwrap();
        assert_eq!(model.algorithm, Algorithm::Bpe);
        assert!(!model.add_dummy_prefix && model.remove_extra_whitespaces);
        assert_eq!(model.unknown(), Some(0));
        let piece = Piece { text: "\u{2581}a".into(), score: -1.5, kind: PieceKind::Normal };
        assert_eq!(model.pieces[1], piece);
    }

    #[test]
    fn every_cut_is_an_error_or_a_shorter_model() {
        let whole = SentencePieceModel::parse(MODEL).unwrap();
        for length in 0..MODEL.len() {
            assert_ne!(SentencePieceModel::parse(&MODEL[..length]), Ok(whole.clone()), "cut at {length}");
        }
        assert!(SentencePieceModel::parse(&MODEL[..5]).unwrap_err().contains("cut short"));
    }

    #[test]
    fn word_models_are_refused() {
        let error = SentencePieceModel::parse(&[0x12, 2, 0x18, 3]).unwrap_err();
        assert!(error.contains("model type 3"), "{error}");
    }
}
