//! Files as they should be, and files that are not.

use std::path::{Path, PathBuf};

use half::f16;
use proptest::prelude::*;

use super::*;
use crate::error::Error;

fn golden(architecture: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/quant/gguf")
        .join(architecture)
        .join("decoder.gguf")
}

/// A value of the metadata as a file has it.
enum Pair<'a> {
    Text(&'a str, &'a str),
    Integer(&'a str, u32),
    Float(&'a str, f32),
}

/// A file of a decoder that has no blocks: `embedding` is the type and the bytes of its embedding.
fn file(pairs: &[Pair<'_>], embedding: (u32, Vec<u8>)) -> Vec<u8> {
    file_with(pairs, embedding, None)
}

/// [`file`] with a vector beside: its name, its length and its type. Its bytes are those of the embedding.
fn file_with(
    pairs: &[Pair<'_>],
    (kind, embedding): (u32, Vec<u8>),
    vector: Option<(&str, u64, u32)>,
) -> Vec<u8> {
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    };
    let usual = [
        Pair::Text("general.architecture", "llama"),
        Pair::Integer("llama.embedding_length", 32),
        Pair::Integer("llama.feed_forward_length", 32),
        Pair::Integer("llama.block_count", 1),
        Pair::Integer("llama.attention.head_count", 4),
        Pair::Integer("llama.context_length", 64),
        Pair::Float("llama.attention.layer_norm_rms_epsilon", 1e-5),
    ];
    let key = |pair: &Pair<'_>| match pair {
        Pair::Text(key, _) | Pair::Integer(key, _) | Pair::Float(key, _) => (*key).to_owned(),
    };
    let replaced: Vec<String> = pairs.iter().map(key).collect();
    let kept = usual.iter().filter(|pair| !replaced.contains(&key(pair)));
    let all: Vec<&Pair<'_>> = kept.chain(pairs).collect();
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((1 + u64::from(vector.is_some())).to_le_bytes());
    out.extend((all.len() as u64).to_le_bytes());
    for pair in all {
        text(&mut out, &key(pair));
        match pair {
            Pair::Text(_, value) => {
                out.extend(8u32.to_le_bytes());
                text(&mut out, value);
            }
            Pair::Integer(_, value) => {
                out.extend(4u32.to_le_bytes());
                out.extend(value.to_le_bytes());
            }
            Pair::Float(_, value) => {
                out.extend(6u32.to_le_bytes());
                out.extend(value.to_le_bytes());
            }
        }
    }
    text(&mut out, "token_embd.weight");
    out.extend(2u32.to_le_bytes());
    out.extend(32u64.to_le_bytes());
    out.extend(2u64.to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    if let Some((name, len, kind)) = vector {
        text(&mut out, name);
        out.extend(1u32.to_le_bytes());
        out.extend(len.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(0u64.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(embedding);
    out
}

fn floats() -> (u32, Vec<u8>) {
    (0, (0..64).flat_map(|i| (i as f32).to_le_bytes()).collect())
}

fn open(bytes: &[u8]) -> Result<Gguf> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.gguf");
    std::fs::write(&path, bytes).unwrap();
    Gguf::open(&path)
}

fn message(bytes: &[u8]) -> String {
    open(bytes).err().expect("an error").to_string()
}

#[test]
fn sizes_are_read_from_the_metadata() {
    let gguf = open(&file(
        &[Pair::Text("general.name", "small"), Pair::Float("llama.rope.freq_base", 5e5)],
        floats(),
    ))
    .unwrap();
    let config = gguf.config();
    assert_eq!(gguf.name(), Some("small"));
    assert_eq!(
        (config.vocab_size, config.hidden_size, config.head_dim, config.num_key_value_heads),
        (2, 32, 8, 4)
    );
    assert_eq!((config.rope_theta, config.tie_word_embeddings), (5e5, true));
}

#[test]
fn what_is_not_read_is_named() {
    for (pairs, part) in [
        (&[Pair::Text("general.architecture", "phi3")][..], "\"phi3\"; known: llama, qwen2"),
        (&[Pair::Text("llama.rope.scaling.type", "yarn")], "yarn"),
        (&[Pair::Integer("llama.attention.head_count", 0)], "head_count = 0"),
        (&[Pair::Integer("llama.attention.head_count_kv", 3)], "num_key_value_heads"),
        (&[Pair::Integer("llama.rope.dimension_count", 4)], "heads are 8 wide"),
        (&[Pair::Integer("llama.block_count", u32::MAX)], "num_hidden_layers"),
        (&[Pair::Integer("split.count", 2)], "llama-gguf-split"),
        (&[Pair::Integer("general.alignment", 12)], "power of two"),
        (&[Pair::Text("llama.context_length", "long")], "one positive integer"),
    ] {
        let message = message(&file(pairs, floats()));
        assert!(message.contains("some.gguf") && message.contains(part), "{message}");
    }
    let message = message(&file(&[], (10, vec![0; 84])));
    assert!(
        message.contains("`token_embd.weight` has type Q2_K") && message.contains("Q4_K, Q5_K, Q6_K"),
        "{message}"
    );
}

#[test]
fn rows_that_are_no_whole_blocks_are_refused() {
    let message = message(&file(&[], (12, vec![0; 288])));
    assert!(message.contains("rows of 32 values, which are no whole Q4_K blocks of 256"), "{message}");
}

#[test]
fn another_decoder_than_config_json_describes_is_told() {
    let gguf = open(&file(&[], floats())).unwrap();
    let config = gguf.config().clone();
    gguf.check(&config).unwrap();
    let differs = |change: fn(&mut LlmConfig)| {
        let mut config = config.clone();
        change(&mut config);
        gguf.check(&config).unwrap_err().to_string()
    };
    for (message, part) in [
        (differs(|llm| llm.rope_theta = 5e5), "rope_theta is 10000 in the file, 500000 by config.json"),
        (differs(|llm| llm.num_key_value_heads = 2), "num_key_value_heads"),
        (differs(|llm| llm.family = crate::config::LlmFamily::Qwen2), "model_type is Llama"),
        (differs(|llm| llm.rope_scaling = Some(RopeScaling::Linear { factor: 2.0 })), "rope_scaling.factor"),
        (differs(|llm| llm.rms_norm_eps = 1e-6), "rms_norm_eps"),
    ] {
        assert!(message.contains("some.gguf") && message.contains(part), "{message}");
    }
}

#[test]
fn blocks_are_read_as_they_are_and_as_values() {
    let mut blocks = Vec::new();
    for row in 0..2i8 {
        blocks.extend(f16::from_f32(0.5).to_le_bytes());
        blocks.extend((0..32).map(|i| (i * (row + 1)) as u8));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.gguf");
    std::fs::write(&path, file(&[], (8, blocks.clone()))).unwrap();
    let tensors = Gguf::open(&path).unwrap().into_tensors();
    let tensor = &tensors["model.embed_tokens.weight"];
    assert_eq!((tensor.dtype, &tensor.shape[..]), (StoredDType::Ggml(GgmlType::Q8_0), &[2, 32][..]));
    assert_eq!(tensor.bytes().unwrap(), blocks);
    let mut values = Vec::new();
    tensor.rows(1, 1).read_values(|piece| values.extend_from_slice(piece)).unwrap();
    assert_eq!(values, (0..32).map(|i| i as f32).collect::<Vec<_>>());
}

#[test]
fn heads_are_put_in_hugging_faces_order() {
    // One head of 4 rows, a byte each: the file has (i, half), the reference (half, i).
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows");
    std::fs::write(&path, [0, 10, 1, 11, 100, 110, 101, 111]).unwrap();
    let bytes = Bytes::Interleaved { offset: 0, len: 8, head_bytes: 4, row_bytes: 1 };
    let stored = StoredTensor {
        path: Arc::new(path),
        key: "q".into(),
        dtype: StoredDType::Other,
        dtype_name: "U8".into(),
        shape: vec![8, 1],
        bytes,
    };
    assert_eq!(stored.bytes().unwrap(), [0, 1, 10, 11, 100, 101, 110, 111]);
}

/// Opens `bytes` and reads all that opens; only panics and allocations matter.
fn read_all(bytes: &[u8]) -> Result<(), Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.gguf");
    std::fs::write(&path, bytes).unwrap();
    let gguf = Gguf::open(&path)?;
    gguf.check(gguf.config())?;
    gguf.into_tensors().values().try_for_each(|tensor| tensor.read_values(|_| ()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever the bytes before the tensors say, there is an error or a file, and no panic.
    #[test]
    fn changed_bytes_give_an_error_or_a_file(
        flips in prop::collection::vec((0usize..4000, any::<u8>()), 1..5), qwen2: bool,
    ) {
        let mut bytes = std::fs::read(golden(if qwen2 { "qwen2" } else { "llama" })).unwrap();
        for (place, byte) in flips {
            bytes[place] = byte;
        }
        if let Err(error) = read_all(&bytes) {
            prop_assert!(error.to_string().contains("some.gguf"), "{}", error);
        }
    }

    /// Rows of one head of q and k that are values, not blocks.
    #[test]
    fn vectors_are_floats_or_refused_by_name(
        name in prop::sample::select(vec!["blk.0.attn_q.bias", "blk.0.attn_k.bias", "blk.0.attn_norm.weight"]),
        format in prop::sample::select(GgmlType::ALL.to_vec()), len in prop::sample::select(vec![8u64, 32, 48, 64, 256]),
    ) {
        let kind = (0, vec![0; 2048]);
        match read_all(&file_with(&[], kind, Some((name, len, format.id())))) {
            Ok(()) => prop_assert!(format.is_float()),
            Err(error) => prop_assert!(!format.is_float() && error.to_string().contains(name), "{}", error),
        }
    }

    #[test]
    fn a_cut_file_is_an_error(cut in 0usize..1_000_000) {
        let bytes = std::fs::read(golden("llama")).unwrap();
        let cut = if cut % 2 == 0 { cut % 4096 } else { cut % bytes.len() };
        prop_assert!(read_all(&bytes[..cut]).is_err());
    }
}
