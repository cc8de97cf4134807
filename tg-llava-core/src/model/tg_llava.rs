use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::{ForwardOutput, ModelBatch};
use crate::config::{ModelConfig, MultimodalConfig};
use crate::error::Result;
use crate::guide::{DetailPerceiver, FeatureGuide};
use crate::llm::{Llm, TokenBatch};
use crate::multimodal::{MultimodalError, SplicePlan, SpliceSettings, splice};
use crate::nn::{LossTargets, cross_entropy, rms_norm};
use crate::pass::{Eager, Pass, Site};
use crate::projector::Projector;
use crate::text::TextTower;
use crate::vision::VisionTower;

/// TG-LLaVA: a decoder that reads pictures as tokens which the question has shaped.
///
/// Parts are absent where the configuration leaves them out: a plain decoder has the `llm` alone.
#[derive(Module, Debug)]
pub struct TgLlava {
    /// Pictures to features; frozen in training.
    pub vision_tower: Option<VisionTower>,
    /// Guide text to features; frozen in training.
    pub text_tower: Option<TextTower>,
    /// Question to mask on the vision features (`mm_cross_attn`).
    pub feature_guide: Option<FeatureGuide>,
    /// Question and crops to detail tokens (`mm_patch_encoder`).
    pub detail_perceiver: Option<DetailPerceiver>,
    /// Vision width to decoder width (`mm_projector`).
    pub projector: Option<Projector>,
    /// The decoder.
    pub llm: Llm,
    #[module(skip)]
    config: ModelConfig,
}

impl ModelConfig {
    /// A randomly initialised model. Weights are allocated when first used, so loading a checkpoint into
    /// it costs nothing twice.
    ///
    /// # Errors
    /// [`crate::Error::Config`] where the parts do not fit together.
    pub fn init(&self, device: &Device) -> Result<TgLlava> {
        self.validate()?;
        let mm = self.multimodal.as_ref();
        Ok(TgLlava {
            vision_tower: mm.map(|mm| mm.vision.init(device)),
            text_tower: mm.and_then(|mm| mm.text.as_ref()).map(|text| text.init(device)),
            feature_guide: mm.and_then(|mm| mm.guide.as_ref()).map(|guide| guide.init(device)),
            detail_perceiver: mm.and_then(|mm| mm.detail.as_ref()).map(|detail| detail.init(device)),
            projector: mm.map(|mm| mm.projector.init(mm.vision.hidden_size, self.llm.hidden_size, device)),
            llm: self.llm.init(device),
            config: self.clone(),
        })
    }
}

impl TgLlava {
    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Changes switches that hold no weights (guide options, lengths, padding).
    ///
    /// # Errors
    /// [`crate::Error::Config`] where the result does not fit together.
    pub fn configure(&mut self, change: impl FnOnce(&mut ModelConfig)) -> Result<()> {
        let mut config = self.config.clone();
        change(&mut config);
        config.validate()?;
        self.config = config;
        Ok(())
    }

    /// The pictures' side of the configuration.
    ///
    /// # Errors
    /// [`MultimodalError::NoVisionTower`] for a plain decoder.
    pub fn multimodal(&self) -> Result<&MultimodalConfig> {
        Ok(self.config.multimodal.as_ref().ok_or(MultimodalError::NoVisionTower)?)
    }

    /// Plans how a batch's text and pictures become decoder inputs.
    ///
    /// # Errors
    /// [`MultimodalError`] where they do not fit together.
    pub fn plan(&self, batch: &ModelBatch) -> Result<SplicePlan> {
        Ok(SplicePlan::new(&batch.rows, SpliceSettings::of(&self.config))?)
    }

    /// Decoder inputs of a batch: towers, bridges, projector, splice.
    ///
    /// # Shapes
    /// - output: `[batch, len, llm_hidden]` with the plan that says what stands where
    ///
    /// # Errors
    /// Where text, pictures and model do not fit together.
    pub fn embed(&self, batch: &ModelBatch) -> Result<(SplicePlan, Tensor<3>)> {
        let plan = self.plan(batch)?;
        let inputs_embeds = self.walk_inputs(&mut Eager, batch, &plan)?;
        Ok((plan, inputs_embeds))
    }

    /// Hidden states of a batch behind the decoder's final norm.
    ///
    /// # Errors
    /// Where text, pictures and model do not fit together.
    pub fn forward(&self, batch: &ModelBatch) -> Result<ForwardOutput> {
        let plan = self.plan(batch)?;
        let hidden_states = self.walk(&mut Eager, batch, &plan)?;
        Ok(ForwardOutput { plan, hidden_states })
    }

    /// The forward pass step by step, to the hidden states behind the decoder's final norm.
    ///
    /// # Shapes
    /// - output: `[batch, len, llm_hidden]`
    ///
    /// # Errors
    /// Where text, pictures and model do not fit together.
    pub fn walk<'m, P: Pass<'m>>(
        &'m self,
        pass: &mut P,
        batch: &ModelBatch,
        plan: &SplicePlan,
    ) -> Result<P::Var> {
        let hidden = self.walk_decoder(pass, batch, plan)?;
        let norm = &self.llm.norm;
        Ok(pass.run_one(Site::DecoderNorm, &[hidden], |x| rms_norm(norm, x[0].clone())))
    }

    /// [`Self::walk`] without the final norm, for whoever goes through norm and head in pieces.
    ///
    /// # Errors
    /// Where text, pictures and model do not fit together.
    pub fn walk_decoder<'m, P: Pass<'m>>(
        &'m self,
        pass: &mut P,
        batch: &ModelBatch,
        plan: &SplicePlan,
    ) -> Result<P::Var> {
        let inputs_embeds = self.walk_inputs(pass, batch, plan)?;
        let tokens = TokenBatch { positions: plan.positions.clone(), mask: plan.mask.clone() };
        Ok(self.llm.walk(pass, inputs_embeds, &tokens))
    }

    fn walk_inputs<'m, P: Pass<'m>>(
        &'m self,
        pass: &mut P,
        batch: &ModelBatch,
        plan: &SplicePlan,
    ) -> Result<P::Var> {
        let mut image_tokens = Vec::new();
        if let Some(images) = &batch.images {
            let features = self.walk_vision(pass, images)?;
            image_tokens.push(self.walk_image_tokens(pass, features, &batch.guides)?);
        }
        let plan = plan.clone();
        let step = move |x: &[Tensor<3>]| splice(&plan, &self.llm, x.first().cloned());
        Ok(pass.run_one(Site::Splice, &image_tokens, step))
    }

    /// Mean cross-entropy over the supervised tokens of a batch, `[1]` in f32.
    ///
    /// # Errors
    /// As [`TgLlava::forward`], and [`MultimodalError::NoLabels`] where nothing is supervised.
    pub fn loss(&self, batch: &ModelBatch) -> Result<Tensor<1>> {
        let output = self.forward(batch)?;
        let targets = LossTargets::new(&output.plan.labels, self.config.llm.vocab_size)?;
        let logits = self.llm.logits(targets.select(output.hidden_states));
        Ok(cross_entropy(logits, &targets))
    }
}
