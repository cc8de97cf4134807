//! Who waits for whom.

use super::*;

/// A long prompt is read piece by piece, while another answer goes on with each step.
#[test]
fn a_long_prompt_does_not_hold_up_the_others() {
    let assistant = assistant();
    let mut engine = Engine::with_options(
        &assistant.model,
        None,
        EngineOptions { prefill_tokens: 80, ..EngineOptions::default() },
    );
    let mut outcomes = Outcomes::new();
    let options = |max_new_tokens| GenerateOptions { max_new_tokens, ..GenerateOptions::default() };
    let short = admit(&mut engine, &mut outcomes, Request::text(vec![1, 5, 9], options(20)));
    step(&mut engine, &mut outcomes);
    let long = admit(&mut engine, &mut outcomes, Request::text(vec![7; 400], options(20)));
    for steps in 1..=5 {
        step(&mut engine, &mut outcomes);
        assert_eq!(outcomes[&short].first().tokens.len(), 1 + steps);
        assert_eq!(outcomes[&long].answers.len(), usize::from(steps == 5));
    }
    // Nobody else waits: as many pieces as it takes.
    assert!(engine.cancel(short) && engine.cancel(long));
    let long = admit(&mut engine, &mut outcomes, Request::text(vec![7; 400], options(20)));
    step(&mut engine, &mut outcomes);
    assert_eq!(outcomes[&long].first().tokens.len(), 1);
}

/// Requests wait their turn while there is no memory for them, and one that would never fit is refused.
#[test]
fn memory_decides_how_many_run() {
    let assistant = assistant();
    let cache = assistant.model.llm.new_cache();
    let options = EngineOptions { cache_bytes: Some(cache.bytes_of(40)), ..EngineOptions::default() };
    let mut engine = Engine::with_options(&assistant.model, None, options);
    let mut outcomes = Outcomes::new();
    let request = |prompt: usize, max_new_tokens, num_answers| {
        let options = GenerateOptions { max_new_tokens, num_answers, ..GenerateOptions::default() };
        Request::text(vec![9; prompt], options)
    };
    let error = engine.admit(request(10, 11, 2)).unwrap_err().to_string();
    assert!(error.starts_with("2 answer(s) of at most 11 tokens to a prompt of 10 take"), "{error}");
    let first = admit(&mut engine, &mut outcomes, request(10, 3, 2));
    let large = admit(&mut engine, &mut outcomes, request(30, 5, 1));
    let small = admit(&mut engine, &mut outcomes, request(4, 4, 1));
    let begun = |outcomes: &Outcomes| [first, large, small].map(|id| !outcomes[&id].answers.is_empty());
    step(&mut engine, &mut outcomes);
    // The small one would fit, and does not overtake.
    assert_eq!(begun(&outcomes), [true, false, false]);
    step(&mut engine, &mut outcomes);
    step(&mut engine, &mut outcomes);
    assert_eq!((engine.len(), begun(&outcomes)), (2, [true, false, false]));
    step(&mut engine, &mut outcomes);
    assert_eq!(begun(&outcomes), [true, true, false]);
    assert!(engine.cancel(large));
    finish(&mut engine, &mut outcomes);
    assert_eq!(begun(&outcomes), [true, true, true]);
}
