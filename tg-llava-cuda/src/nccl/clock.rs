//! How long the device takes for calls that the host only enqueues.
#![expect(unsafe_code, reason = "CUDA is a C library; each block says why it holds")]

use std::collections::VecDeque;

use cudarc::driver::DriverError;
use cudarc::driver::result::event;
use cudarc::driver::sys::{CUevent, CUevent_flags, CUresult, CUstream, cuDriverGetVersion};

/// The oldest CUDA whose driver has the function by which bindings of the newest CUDA read events; they panic where it is missing.
const OLDEST: i32 = 12_080;

/// Calls under way from which on the clock looks whether some are over, even if nobody asks.
const MANY: usize = 256;

/// A place in a stream, with the time at which the device came to it.
#[derive(Debug)]
struct Event(CUevent);

// SAFETY: the driver lets any thread use an event.
unsafe impl Send for Event {}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `event::create`, owned here alone, and destroyed once; the driver lets it be under way still. Where the device
        // has failed there is nothing to free.
        let _ = unsafe { event::destroy(self.0) };
    }
}

/// Adds up what the device spends in calls. To be used where the device's context is current, on its runner thread; dropped elsewhere,
/// its events may stay until the process ends.
#[derive(Debug, Default)]
pub struct Clock {
    /// Whether the driver can tell.
    runs: bool,
    /// Before and after each call that is not known to be over, in the order of the stream.
    under_way: VecDeque<[Event; 2]>,
    spare: Vec<Event>,
    seconds: f64,
}

impl Clock {
    /// A clock that runs where the driver is new enough.
    pub fn new() -> Self {
        let mut version = 0;
        // SAFETY: writes one integer; the driver is there, since the device is open.
        let found = unsafe { cuDriverGetVersion(&mut version) }.result();
        Self { runs: found.is_ok() && version >= OLDEST, ..Self::default() }
    }

    /// Measures what `call` puts onto `stream`.
    ///
    /// # Errors
    /// Those of the call, and the driver's.
    pub fn time(
        &mut self,
        stream: CUstream,
        call: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        if !self.runs {
            return call();
        }
        if self.under_way.len() >= MANY {
            self.settle().map_err(driver)?;
        }
        let begin = self.record(stream).map_err(driver)?;
        call()?;
        let end = self.record(stream).map_err(driver)?;
        self.under_way.push_back([begin, end]);
        Ok(())
    }

    /// Seconds of the calls that are over, each told once; those under way come the next time. A device that has failed says so in
    /// the next call. `None` where the clock does not run.
    pub fn take_seconds(&mut self) -> Option<f64> {
        let _ = self.settle();
        self.runs.then(|| std::mem::take(&mut self.seconds))
    }

    fn record(&mut self, stream: CUstream) -> Result<Event, DriverError> {
        let event = match self.spare.pop() {
            Some(event) => event,
            None => Event(event::create(CUevent_flags::CU_EVENT_DEFAULT)?),
        };
        // SAFETY: the event lives, and the stream is the server's of this very call, of the same context.
        unsafe { event::record(event.0, stream) }?;
        Ok(event)
    }

    fn settle(&mut self) -> Result<(), DriverError> {
        while let Some([begin, end]) = self.under_way.front() {
            // SAFETY: both live, were made with timing, and recorded on one stream.
            let milliseconds = match unsafe { event::elapsed(begin.0, end.0) } {
                Err(DriverError(CUresult::CUDA_ERROR_NOT_READY)) => return Ok(()),
                other => other?,
            };
            self.seconds += f64::from(milliseconds) / 1e3;
            self.spare.extend(self.under_way.pop_front().into_iter().flatten());
        }
        Ok(())
    }
}

fn driver(error: DriverError) -> String {
    format!("CUDA cannot time a collective: {error:?}")
}
