//! Parameters that become ready together on the way back.

use std::collections::BTreeMap;

use burn::tensor::DType;
use tg_llava_core::pass::Site;

use super::table::ParameterTable;
use crate::config::Component;

/// One parameter that learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its path.
    pub path: String,
    /// Number of values.
    pub count: usize,
    /// The format in which its gradients travel: that of the weights, but f32 where many parts of a micro-batch add to it.
    pub travels: DType,
}

/// The parameters that learn, in the order in which the backward pass has their gradients: head and last norm, the decoder's
/// blocks from the last to the first, the embedding, and all others at the end.
#[derive(Debug, Clone)]
pub(crate) struct Units {
    units: Vec<Vec<Member>>,
    blocks: usize,
}

impl Units {
    /// The units of a model of which `table` tells; its weights are in `dtype`.
    pub fn new(table: &ParameterTable, dtype: DType) -> Self {
        let block = |path: &str| path.strip_prefix("llm.layers.")?.split_once('.')?.0.parse::<usize>().ok();
        let learn: Vec<_> = table.iter().filter(|(_, info)| info.trains).collect();
        let decoder = |component| component == Component::Llm;
        let blocks = table.iter().filter_map(|(path, _)| block(path)).max().map_or(0, |last| last + 1);
        let mut units: BTreeMap<usize, Vec<Member>> = BTreeMap::new();
        for (path, info) in learn {
            let (unit, travels) = match (decoder(info.component), block(path)) {
                (true, Some(block)) => (blocks - block, dtype),
                (true, None) if info.key.contains("embed_tokens") => (blocks + 1, DType::F32),
                (true, None) => (0, DType::F32),
                (false, _) => (blocks + 2, dtype),
            };
            units.entry(unit).or_default().push(Member {
                path: path.to_owned(),
                count: info.count(),
                travels,
            });
        }
        let units = (0..blocks + 3).map(|unit| units.remove(&unit).unwrap_or_default()).collect();
        Self { units, blocks }
    }

    /// How many units there are; some may be empty.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// The parameters of a unit.
    pub fn members(&self, unit: usize) -> &[Member] {
        &self.units[unit]
    }

    /// All parameters, unit by unit.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.units.iter().flatten()
    }

    /// The units that are ready once the backward pass is through `site`: all before the one that is given.
    pub fn ready_after(&self, site: Site) -> usize {
        match site {
            Site::DecoderBlock(block) => self.blocks - block + 1,
            Site::Splice => self.blocks + 2,
            _ => 0,
        }
    }
}
