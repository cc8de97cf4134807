//! Batches made by worker threads ahead of the device, in the sampler's order.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

struct Job<J, T> {
    what: J,
    reply: mpsc::Sender<T>,
}

/// An iterator over what worker threads make of jobs, such as lists of sample numbers, ahead of time.
///
/// The results come in the order of the jobs, whatever thread makes them, so the number of threads changes nothing
/// but the speed. Dropping it ends the threads.
#[derive(Debug)]
pub struct Prefetch<I: Iterator, T> {
    batches: I,
    ahead: usize,
    jobs: Option<mpsc::Sender<Job<I::Item, T>>>,
    due: VecDeque<mpsc::Receiver<T>>,
    workers: Vec<JoinHandle<()>>,
}

impl<I: Iterator<Item: Send + 'static>, T: Send + 'static> Prefetch<I, T> {
    /// Calls `make` for each of `batches` in `threads` threads (at least one), with up to `ahead` results (at least
    /// one) finished or under way at a time.
    ///
    /// # Panics
    /// Where the system gives no thread at all.
    pub fn new(
        make: impl Fn(I::Item) -> T + Send + Sync + 'static,
        batches: I,
        threads: usize,
        ahead: usize,
    ) -> Self {
        let (jobs, queue) = mpsc::channel::<Job<I::Item, T>>();
        let (make, queue) = (Arc::new(make), Arc::new(Mutex::new(queue)));
        let workers = (0..threads.max(1)).map(|_| {
            let (make, queue) = (Arc::clone(&make), Arc::clone(&queue));
            thread::Builder::new().name("data".into()).spawn(move || work(&*make, &queue))
        });
        // Where the system gives fewer threads than were asked for, these do.
        let workers: Vec<_> = workers.map_while(Result::ok).collect();
        assert!(!workers.is_empty(), "the system gives no thread to load data in");
        let mut prefetch =
            Self { batches, ahead: ahead.max(1), jobs: Some(jobs), due: VecDeque::new(), workers };
        prefetch.order_more();
        prefetch
    }
}

impl<I: Iterator, T> Prefetch<I, T> {
    /// Hands out jobs until enough are under way.
    fn order_more(&mut self) {
        while let (Some(jobs), true) = (&self.jobs, self.due.len() < self.ahead) {
            let Some(what) = self.batches.next() else {
                self.jobs = None;
                return;
            };
            let (reply, result) = mpsc::channel();
            self.due.push_back(result);
            // Fails only if every worker is gone; then the result below is an error too.
            jobs.send(Job { what, reply }).ok();
        }
    }
}

fn work<J, T>(make: &impl Fn(J) -> T, queue: &Mutex<mpsc::Receiver<Job<J, T>>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { what, reply }) = job else { return };
        // Nobody waits for it any more where the iterator was dropped.
        reply.send(make(what)).ok();
    }
}

impl<I: Iterator, T> Iterator for Prefetch<I, T> {
    type Item = T;

    /// The next batch.
    ///
    /// # Panics
    /// Where a worker panicked.
    fn next(&mut self) -> Option<T> {
        let result = self.due.pop_front()?;
        let batch = result.recv().expect("a worker that loads data panicked; see its message above");
        self.order_more();
        Some(batch)
    }
}

impl<I: Iterator, T> Drop for Prefetch<I, T> {
    fn drop(&mut self) {
        self.jobs = None;
        self.due.clear();
        for worker in self.workers.drain(..) {
            // A panic was reported where it happened.
            worker.join().ok();
        }
    }
}
