//! The templates themselves.
//!
//! Their texts are those of LLaVA's and TG-LLaVA's `conversation.py`: models were trained on them to the letter.

use std::borrow::Cow;

use super::template::{Role, SeparatorStyle, Template};

const CURIOUS_HUMAN: &str = "A chat between a curious human and an artificial intelligence assistant. The assistant gives \
    helpful, detailed, and polite answers to the human's questions.";

const CURIOUS_USER: &str = "A chat between a curious user and an artificial intelligence assistant. The assistant gives \
    helpful, detailed, and polite answers to the user's questions.";

const RESPECTFUL: &str = "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while \
    being safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, \
    dangerous, or illegal content. Please ensure that your responses are socially unbiased and positive \
    in nature.\n\nIf a question does not make any sense, or is not factually coherent, explain why \
    instead of answering something not correct. If you don't know the answer to a question, please \
    don't share false information.";

const CHATML_DIRECT: &str = "<|im_start|>system\nAnswer the questions.";

const LLAMA_3_SYSTEM: &str = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and \
    vision assistant. You are able to understand the visual content that the user provides, and assist \
    the user with a variety of tasks using natural language.";

const CHATML_HONEST: &str = "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. The assistant \
    gives helpful and honest answers.";

const TAGGED_PICTURES: &str = "A chat between a curious user and an artificial intelligence assistant. The assistant is able to \
    understand the visual content that the user provides, and assist the user with a variety of tasks \
    using natural language.The visual content will be provided with the following format: <Image>visual \
    content</Image>.";

const LANGUAGE_AND_VISION: &str = "You are a helpful language and vision assistant. You are able to understand the visual content that \
    the user provides, and assist the user with a variety of tasks using natural language.";

const ENERGY: &[(Role, &str)] = &[
    (Role::User, "What are the key differences between renewable and non-renewable energy sources?"),
    (
        Role::Assistant,
        "Renewable energy sources are those that can be replenished naturally in a relatively \
        short amount of time, such as solar, wind, hydro, geothermal, and biomass. Non-renewable \
        energy sources, on the other hand, are finite and will eventually be depleted, such as \
        coal, oil, and natural gas. Here are some key differences between renewable and \
        non-renewable energy sources:\n1. Availability: Renewable energy sources are virtually \
        inexhaustible, while non-renewable energy sources are finite and will eventually run \
        out.\n2. Environmental impact: Renewable energy sources have a much lower environmental \
        impact than non-renewable sources, which can lead to air and water pollution, greenhouse \
        gas emissions, and other negative effects.\n3. Cost: Renewable energy sources can be more \
        expensive to initially set up, but they typically have lower operational costs than \
        non-renewable sources.\n4. Reliability: Renewable energy sources are often more reliable \
        and can be used in more remote locations than non-renewable sources.\n5. Flexibility: \
        Renewable energy sources are often more flexible and can be adapted to different \
        situations and needs, while non-renewable sources are more rigid and inflexible.\n6. \
        Sustainability: Renewable energy sources are more sustainable over the long term, while \
        non-renewable sources are not, and their depletion can lead to economic and social \
        instability.\n",
    ),
];

const HUMAN: [&str; 2] = ["Human", "Assistant"];
const USER: [&str; 2] = ["USER", "ASSISTANT"];
const CHATML: [&str; 2] = ["<|im_start|>user\n", "<|im_start|>assistant\n"];
const LLAMA_3: [&str; 2] =
    ["<|start_header_id|>user<|end_header_id|>\n\n", "<|start_header_id|>assistant<|end_header_id|>\n\n"];
const NO_ROLES: [&str; 2] = ["", ""];

const VICUNA_V0: Template = Template {
    name: "v0",
    system: Cow::Borrowed(CURIOUS_HUMAN),
    roles: HUMAN,
    style: SeparatorStyle::Single,
    sep: "###",
    sep2: None,
    version: "Unknown",
    opening: ENERGY,
};

const VICUNA_V1: Template = Template {
    name: "v1",
    system: Cow::Borrowed(CURIOUS_USER),
    roles: USER,
    style: SeparatorStyle::Two,
    sep: " ",
    sep2: Some("</s>"),
    version: "v1",
    opening: &[],
};

const LLAMA_2: Template = Template {
    name: "llama_2",
    system: Cow::Borrowed(RESPECTFUL),
    roles: USER,
    style: SeparatorStyle::Llama2,
    sep: "<s>",
    sep2: Some("</s>"),
    version: "llama_v2",
    opening: &[],
};

const MPT: Template = Template {
    name: "mpt",
    system: Cow::Borrowed(CHATML_HONEST),
    roles: CHATML,
    style: SeparatorStyle::Mpt,
    sep: "<|im_end|>",
    sep2: None,
    version: "mpt",
    opening: &[],
};

const PLAIN: Template = Template {
    name: "plain",
    system: Cow::Borrowed(""),
    roles: NO_ROLES,
    style: SeparatorStyle::Plain,
    sep: "\n",
    sep2: None,
    version: "Unknown",
    opening: &[],
};

/// Every template, in the order of the reference's table.
pub(super) static TEMPLATES: [Template; 18] = [
    Template { name: "default", ..VICUNA_V0 },
    VICUNA_V0,
    VICUNA_V1,
    Template { name: "vicuna_v1", ..VICUNA_V1 },
    LLAMA_2,
    Template { name: "mistral_instruct", system: Cow::Borrowed(""), sep: "", ..LLAMA_2 },
    Template { name: "chatml_direct", system: Cow::Borrowed(CHATML_DIRECT), ..MPT },
    Template { name: "mistral_direct", system: Cow::Borrowed(CHATML_DIRECT), ..MPT },
    Template {
        name: "llama_3",
        system: Cow::Borrowed(LLAMA_3_SYSTEM),
        roles: LLAMA_3,
        style: SeparatorStyle::Llama3,
        sep: "<|eot_id|>",
        version: "llama_v3",
        ..MPT
    },
    Template { name: "qwen_2", style: SeparatorStyle::Qwen2, version: "qwen_2", ..MPT },
    PLAIN,
    Template { name: "v0_plain", ..PLAIN },
    Template { name: "llava_v0", opening: &[], ..VICUNA_V0 },
    Template {
        name: "v0_mmtag",
        system: Cow::Borrowed(TAGGED_PICTURES),
        version: "v0_mmtag",
        opening: &[],
        ..VICUNA_V0
    },
    Template { name: "llava_v1", system: Cow::Borrowed(CURIOUS_HUMAN), ..VICUNA_V1 },
    Template { name: "v1_mmtag", system: Cow::Borrowed(TAGGED_PICTURES), version: "v1_mmtag", ..VICUNA_V1 },
    Template { name: "llava_llama_2", system: Cow::Borrowed(LANGUAGE_AND_VISION), ..LLAMA_2 },
    MPT,
];
