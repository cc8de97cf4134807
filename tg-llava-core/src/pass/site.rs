/// A step of the forward pass, named by what it gives. Numbers count blocks from 0.
///
/// `images` is the number of a batch's pictures, `texts` that of the guide texts that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// Patches of up to a chunk of pictures and crops, `[chunk, num_positions, vision_width]`.
    VisionEmbed,
    /// The same behind a block of the vision tower.
    VisionBlock(usize),
    /// Features of the pictures, `[images, num_vision_tokens, vision_width]`, and where crops are read those of each picture's
    /// four crops in a row, `[images, 4 * num_vision_tokens, vision_width]`.
    VisionFeatures,
    /// Token and position embeddings of the guide texts, `[texts, len, text_hidden]`.
    TextEmbed,
    /// The same behind a block of the text tower.
    TextBlock(usize),
    /// Hidden states behind the text tower's final norm, `[texts, len, text_hidden]`, and the pooled ones, `[texts, 1, text_hidden]`.
    TextFeatures,
    /// Both, a row a picture: `[images, len, text_hidden]` and `[images, 1, text_hidden]`.
    Guides,
    /// The feature guide's latents as its first layer reads them, `[images, num_query_tokens, hidden]`, and the text that they
    /// read, `[images, 1, encoder_width]`.
    GuideEmbed,
    /// Latents behind a layer's self-attention.
    GuideSelfAttention(usize),
    /// Latents behind a layer's attention to the text, in layers that have one.
    GuideCrossAttention(usize),
    /// Latents behind a layer.
    GuideBlock(usize),
    /// The mask, `[images, num_vision_tokens, vision_width]`.
    GuideMask,
    /// Vision features with the mask added.
    GuidedFeatures,
    /// Features at the decoder's width, `[images, num_vision_tokens, llm_hidden]`.
    Projector,
    /// What the detail perceiver reads: crops `[images, 4 * num_vision_tokens, hidden]`, text `[images, len, hidden]`, and its
    /// latents `[images, num_latents, hidden]`.
    DetailEmbed,
    /// What a layer's attention adds to the latents.
    DetailAttention(usize),
    /// Latents behind a layer.
    DetailBlock(usize),
    /// Latents behind the final norm.
    DetailNorm,
    /// Detail tokens, `[images, num_latents, llm_hidden]`.
    DetailTokens,
    /// All decoder tokens of each picture, `[images, num_image_tokens, llm_hidden]`.
    ImageTokens,
    /// The decoder's inputs, `[batch, len, llm_hidden]`.
    Splice,
    /// The same behind a block of the decoder.
    DecoderBlock(usize),
    /// The same behind the decoder's final norm.
    DecoderNorm,
}
