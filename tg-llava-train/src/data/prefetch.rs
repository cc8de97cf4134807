//! Batches made by worker threads ahead of the device, in the sampler's order.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use super::{collate::Batch, error::DataError, loader::Loader};

type Outcome = Result<Batch, DataError>;

struct Job {
    indices: Vec<usize>,
    reply: mpsc::Sender<Outcome>,
}

/// An iterator over the batches of a [`Loader`], made ahead of time.
///
/// The batches come in the order of their sample numbers, whatever thread makes them, so the number of threads
/// changes nothing but the speed. Dropping it ends the threads.
#[derive(Debug)]
pub struct Prefetch<I> {
    batches: I,
    ahead: usize,
    jobs: Option<mpsc::Sender<Job>>,
    due: VecDeque<mpsc::Receiver<Outcome>>,
    workers: Vec<JoinHandle<()>>,
}

impl<I: Iterator<Item = Vec<usize>>> Prefetch<I> {
    /// Makes `batches` of `loader` in `threads` threads (at least one), with up to `ahead` batches (at least one)
    /// finished or under way at a time.
    pub fn new(loader: &Arc<Loader>, batches: I, threads: usize, ahead: usize) -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let workers = (0..threads.max(1)).map(|_| {
            let (loader, queue) = (Arc::clone(loader), Arc::clone(&queue));
            thread::spawn(move || work(&loader, &queue))
        });
        let workers = workers.collect();
        let mut prefetch =
            Self { batches, ahead: ahead.max(1), jobs: Some(jobs), due: VecDeque::new(), workers };
        prefetch.order_more();
        prefetch
    }

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

fn work(loader: &Loader, queue: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { indices, reply }) = job else { return };
        // Nobody waits for it any more where the iterator was dropped.
        reply.send(loader.batch(&indices)).ok();
    }
}

impl<I: Iterator<Item = Vec<usize>>> Iterator for Prefetch<I> {
    type Item = Outcome;

    /// The next batch.
    ///
    /// # Panics
    /// Where a worker panicked.
    fn next(&mut self) -> Option<Outcome> {
        let result = self.due.pop_front()?;
        let batch = result.recv().expect("a worker that loads data panicked; see its message above");
        self.order_more();
        Some(batch)
    }
}

impl<I> Drop for Prefetch<I> {
    fn drop(&mut self) {
        self.jobs = None;
        self.due.clear();
        for worker in self.workers.drain(..) {
            // A panic was reported where it happened.
            worker.join().ok();
        }
    }
}
