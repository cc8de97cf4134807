//! Batches made by worker threads ahead of the device, in the sampler's order.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

struct Job<T> {
    indices: Vec<usize>,
    reply: mpsc::Sender<T>,
}

/// An iterator over what worker threads make of lists of sample numbers, ahead of time.
///
/// The results come in the order of the lists, whatever thread makes them, so the number of threads changes nothing
/// but the speed. Dropping it ends the threads.
#[derive(Debug)]
pub struct Prefetch<I, T> {
    batches: I,
    ahead: usize,
    jobs: Option<mpsc::Sender<Job<T>>>,
    due: VecDeque<mpsc::Receiver<T>>,
    workers: Vec<JoinHandle<()>>,
}

impl<I: Iterator<Item = Vec<usize>>, T: Send + 'static> Prefetch<I, T> {
    /// Calls `make` for each of `batches` in `threads` threads (at least one), with up to `ahead` results (at least
    /// one) finished or under way at a time.
    pub fn new(
        make: impl Fn(&[usize]) -> T + Send + Sync + 'static,
        batches: I,
        threads: usize,
        ahead: usize,
    ) -> Self {
        let (jobs, queue) = mpsc::channel::<Job<T>>();
        let (make, queue) = (Arc::new(make), Arc::new(Mutex::new(queue)));
        let workers = (0..threads.max(1)).map(|_| {
            let (make, queue) = (Arc::clone(&make), Arc::clone(&queue));
            thread::spawn(move || work(&*make, &queue))
        });
        let workers = workers.collect();
        let mut prefetch =
            Self { batches, ahead: ahead.max(1), jobs: Some(jobs), due: VecDeque::new(), workers };
        prefetch.order_more();
        prefetch
    }
}

impl<I: Iterator<Item = Vec<usize>>, T> Prefetch<I, T> {
    /// Hands out jobs until enough are under way.
    fn order_more(&mut self) {
        while let (Some(jobs), true) = (&self.jobs, self.due.len() < self.ahead) {
            let Some(indices) = self.batches.next() else {
                self.jobs = None;
                return;
            };
            let (reply, result) = mpsc::channel();
            self.due.push_back(result);
            // Fails only if every worker is gone; then the result below is an error too.
            jobs.send(Job { indices, reply }).ok();
        }
    }
}

fn work<T>(make: &impl Fn(&[usize]) -> T, queue: &Mutex<mpsc::Receiver<Job<T>>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { indices, reply }) = job else { return };
        // Nobody waits for it any more where the iterator was dropped.
        reply.send(make(&indices)).ok();
    }
}

impl<I: Iterator<Item = Vec<usize>>, T> Iterator for Prefetch<I, T> {
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

impl<I, T> Drop for Prefetch<I, T> {
    fn drop(&mut self) {
        self.jobs = None;
        self.due.clear();
        for worker in self.workers.drain(..) {
            // A panic was reported where it happened.
            worker.join().ok();
        }
    }
}
