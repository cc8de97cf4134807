//! NCCL's calls.
#![expect(unsafe_code, reason = "NCCL is a C library; each block says why it holds")]

use std::ffi::{CStr, c_char, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl_common::device_handle::DeviceHandle;
use cubecl_environment::stream::StreamId;
use cubecl_server::command::DeviceStream;
use cubecl_server::server::{BufferBinding, ServerStorage};
use cubecl_server::stream::WriteScoped;
use cudarc::driver::sys::CUstream;
use cudarc::nccl::sys as nccl;
use tg_llava_train::parallel::World;

use super::clock::Clock;
use super::rendezvous::ID_LEN;
use crate::device::Server;

/// The oldest version that splits communicators.
const OLDEST: i32 = 21_800;

/// Whom a call goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// All ranks.
    World,
    /// Those of the node.
    Node,
    /// Those of the same local rank, by node.
    Across,
}

/// What a group does with pairs of buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Slice `r` of every rank's first buffer to rank `r`'s second, by rank.
    Transpose,
    /// Every rank's first buffer to all second ones, by rank.
    AllGather,
    /// The sum of all first buffers to all second ones.
    Sum,
}

/// One group of ranks, as NCCL knows it.
#[derive(Debug, Clone, Copy)]
struct Communicator(nccl::ncclComm_t);

// SAFETY: the pointer is NCCL's, which lets any thread use it as long as one does at a time. `Communicators::alive` sees to that.
unsafe impl Send for Communicator {}
// SAFETY: as above.
unsafe impl Sync for Communicator {}

/// The three groups of a rank.
#[derive(Debug)]
pub struct Communicators {
    world: Communicator,
    node: Communicator,
    across: Communicator,
    numbers: World,
    /// Whether NCCL still has them. Held during every call.
    alive: Mutex<bool>,
}

/// Loads NCCL.
///
/// # Errors
/// A text where there is none, or one that is too old.
pub fn load() -> Result<(), String> {
    // SAFETY: tries to open shared libraries by NCCL's names, and runs nothing but their initialisers.
    if !unsafe { nccl::is_culib_present() } {
        return Err("libnccl.so is not there. Install NCCL, or where only libnccl.so.2 is there (as in Python's wheels, \
                    site-packages/nvidia/nccl/lib), put a link named libnccl.so beside it and that folder into \
                    LD_LIBRARY_PATH"
            .into());
    }
    let mut version = 0;
    // SAFETY: writes one integer.
    check(unsafe { nccl::ncclGetVersion(&mut version) })?;
    match version {
        OLDEST.. => Ok(()),
        _ => Err(format!("libnccl.so is NCCL version code {version}; 2.18 ({OLDEST}) or newer is needed")),
    }
}

/// What ranks agree on before they meet. With `NCCL_COMM_ID` set it is the same in every process.
///
/// # Errors
/// NCCL's.
pub fn unique_id() -> Result<[u8; ID_LEN], String> {
    let mut id = nccl::ncclUniqueId { internal: [0; ID_LEN] };
    // SAFETY: fills the bytes, which are there.
    check(unsafe { nccl::ncclGetUniqueId(&mut id) })?;
    Ok(id.internal.map(|byte| byte as u8))
}

impl Communicators {
    /// Meets all other ranks, on the runner thread of the device.
    ///
    /// # Errors
    /// NCCL's.
    pub fn join(numbers: World, id: [u8; ID_LEN]) -> Result<Self, String> {
        let id = nccl::ncclUniqueId { internal: id.map(|byte| byte as c_char) };
        let mut world = Communicator(std::ptr::null_mut());
        // SAFETY: writes the pointer; the runner thread has the device's context current, and the id is one that NCCL made.
        check(unsafe {
            nccl::ncclCommInitRank(&mut world.0, numbers.size() as i32, id, numbers.rank() as i32)
        })?;
        let node = world.split(numbers.node(), numbers.local_rank())?;
        let across = world.split(numbers.local_rank(), numbers.node())?;
        Ok(Self { world, node, across, numbers, alive: Mutex::new(true) })
    }

    /// The error that NCCL met on its own threads, if any; none is told while the other thread is inside of a call.
    ///
    /// # Errors
    /// That error.
    pub fn async_error(&self) -> Result<(), String> {
        let Some(_alive) = self.soon().filter(|alive| **alive) else { return Ok(()) };
        [self.world, self.node, self.across].into_iter().try_for_each(|communicator| {
            let mut state = nccl::ncclResult_t::ncclSuccess;
            // SAFETY: the communicator is alive while the lock is held, and the state is written.
            check(unsafe { nccl::ncclCommGetAsyncError(communicator.0, &mut state) })?;
            check(state)
        })
    }

    /// Ends what waits for other ranks on the device, from any thread; nothing can be called afterwards. A thread that is stuck inside
    /// of a call is left there: only the end of the process helps.
    pub fn abort(&self) {
        let Some(mut alive) = self.soon().filter(|alive| **alive) else { return };
        *alive = false;
        for communicator in [self.node, self.across, self.world] {
            // SAFETY: it is alive, no other thread is inside of a call, and nobody uses or frees it again.
            unsafe { nccl::ncclCommAbort(communicator.0) };
        }
    }

    /// Gives them back after the last call, on the runner thread.
    pub fn destroy(&self) {
        // Others wait for a moment at most, and not at all once this is false: giving back may take its time.
        if !std::mem::replace(&mut *self.held(), false) {
            return;
        }
        for communicator in [self.node, self.across, self.world] {
            // SAFETY: it was alive, and nobody uses or frees it again.
            unsafe { nccl::ncclCommDestroy(communicator.0) };
        }
    }

    fn held(&self) -> MutexGuard<'_, bool> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for a thread that must not wait long.
    fn soon(&self) -> Option<MutexGuard<'_, bool>> {
        for _ in 0..100 {
            match self.alive.try_lock() {
                Ok(alive) => return Some(alive),
                Err(TryLockError::Poisoned(alive)) => return Some(alive.into_inner()),
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(10)),
            }
        }
        None
    }

    fn group(&self, group: Group) -> (Communicator, usize) {
        match group {
            Group::World => (self.world, self.numbers.size()),
            Group::Node => (self.node, self.numbers.local_size()),
            Group::Across => (self.across, self.numbers.nodes()),
        }
    }

    /// Puts a call for all pairs of buffers behind whatever the device computes for the calling thread, and measures it by `clock`.
    ///
    /// # Errors
    /// A text where lengths or formats do not fit, memory cannot be found, or NCCL refuses.
    pub fn enqueue(
        &self,
        handle: &DeviceHandle<Server>,
        (group, call): (Group, Call),
        pairs: &[(CubeTensor, CubeTensor)],
        clock: &mut Clock,
    ) -> Result<(), String> {
        let (communicator, ranks) = self.group(group);
        let formats: Vec<Format> =
            pairs.iter().map(|(from, to)| Format::new(call, ranks, from, to)).collect::<Result<_, _>>()?;
        let bindings: Vec<(BufferBinding, BufferBinding)> = pairs
            .iter()
            .map(|(from, to)| (from.handle.clone().binding(), to.handle.clone().binding()))
            .collect();
        let done = handle.submit_blocking(move |server: &mut Server| {
            // CubeCL runs this under the calling thread's stream.
            let id = StreamId::current();
            let mut held = Vec::with_capacity(bindings.len());
            let mut places = Vec::with_capacity(bindings.len());
            for ((from, to), &format) in bindings.iter().zip(&formats) {
                let from = server.get_resource(from.clone(), id).map_err(|error| error.to_string())?;
                let to = server.get_resource(to.clone(), id).map_err(|error| error.to_string())?;
                places.push(Place::new(
                    format,
                    ranks,
                    (from.resource().ptr, from.resource().size),
                    (to.resource().ptr, to.resource().size),
                )?);
                held.push((from, to));
            }
            let all = bindings.iter().flat_map(|(from, to)| [from, to]);
            let mut streams = server.write_streams().resolve(id, all).map_err(|error| error.to_string())?;
            let stream: CUstream = streams.current().signal();
            let alive = self.held();
            if !*alive {
                return Err("the communicators are gone".into());
            }
            clock.time(stream, || communicator.make(call, ranks, &places, stream))
        });
        done.map_err(|error| format!("{error:?}"))?
    }
}

/// What is in a pair of buffers.
#[derive(Debug, Clone, Copy)]
struct Format {
    data: nccl::ncclDataType_t,
    /// Bytes of a value.
    size: usize,
    /// Values that a rank sends to each, or to all.
    count: usize,
    /// Values of the whole first and second buffer.
    lens: [usize; 2],
}

impl Format {
    fn new(call: Call, ranks: usize, from: &CubeTensor, to: &CubeTensor) -> Result<Self, String> {
        let data = match from.dtype {
            DType::BF16 => nccl::ncclDataType_t::ncclBfloat16,
            DType::F16 => nccl::ncclDataType_t::ncclFloat16,
            DType::F32 => nccl::ncclDataType_t::ncclFloat32,
            other => return Err(format!("values in {} do not travel; f32, f16 and bf16 do", other.name())),
        };
        let lens = [from, to].map(|tensor| tensor.meta.shape().num_elements());
        let (count, fits) = match call {
            Call::Transpose => (lens[0] / ranks, lens[0] == lens[1] && lens[0].is_multiple_of(ranks)),
            Call::AllGather => (lens[0], lens[0] * ranks == lens[1]),
            Call::Sum => (lens[0], lens[0] == lens[1]),
        };
        if !fits || from.dtype != to.dtype {
            return Err(format!(
                "{call:?} over {ranks} ranks cannot go from {} values to {}",
                lens[0], lens[1]
            ));
        }
        Ok(Self { data, size: from.dtype.size(), count, lens })
    }
}

/// Where a pair of buffers is on the device.
struct Place {
    from: *const c_void,
    to: *mut c_void,
    format: Format,
}

impl Place {
    /// Addresses and sizes in bytes, which must hold what the format says.
    fn new(format: Format, ranks: usize, from: (u64, u64), to: (u64, u64)) -> Result<Self, String> {
        let held = [from.1, to.1];
        let needed = format.lens.map(|len| (len * format.size) as u64);
        if held.iter().zip(&needed).any(|(held, needed)| held < needed) {
            return Err(format!("{held:?} bytes of memory instead of {needed:?}, over {ranks} ranks"));
        }
        Ok(Self { from: from.0 as *const c_void, to: to.0 as *mut c_void, format })
    }
}

impl Communicator {
    /// The ranks that give the same colour, in the order of their keys.
    fn split(self, colour: usize, key: usize) -> Result<Self, String> {
        let mut split = Self(std::ptr::null_mut());
        // SAFETY: the communicator was just made by this thread; NCCL takes a missing configuration for the usual one.
        check(unsafe {
            nccl::ncclCommSplit(self.0, colour as i32, key as i32, &mut split.0, std::ptr::null_mut())
        })?;
        Ok(split)
    }

    /// Enqueues a call for all places at once.
    fn make(self, call: Call, ranks: usize, places: &[Place], stream: CUstream) -> Result<(), String> {
        let stream = stream.cast();
        // SAFETY: opens a group on this thread, closed below whatever happens between.
        check(unsafe { nccl::ncclGroupStart() })?;
        let mut made = Ok(());
        for Place { from, to, format: Format { data, size, count, .. } } in places {
            let (from, to, data, count) = (*from, *to, *data, *count);
            // SAFETY: `Format` and `Place` have checked that the buffers hold what is read and written; they stay until the stream is
            // past this call, since CubeCL gives memory back in the stream's order. The communicator is alive.
            made = made.and_then(|()| unsafe {
                match call {
                    Call::Transpose => (0..ranks).try_for_each(|peer| {
                        let at = peer * count * size;
                        let rank = peer as i32;
                        check(nccl::ncclSend(from.byte_add(at), count, data, rank, self.0, stream))?;
                        check(nccl::ncclRecv(to.byte_add(at), count, data, rank, self.0, stream))
                    }),
                    Call::AllGather => check(nccl::ncclAllGather(from, to, count, data, self.0, stream)),
                    Call::Sum => {
                        let sum = nccl::ncclRedOp_t::ncclSum;
                        check(nccl::ncclAllReduce(from, to, count, data, sum, self.0, stream))
                    }
                }
            });
        }
        // SAFETY: closes the group that this thread has opened.
        let closed = check(unsafe { nccl::ncclGroupEnd() });
        made.and(closed)
    }
}

/// NCCL's own words for what went wrong.
fn check(result: nccl::ncclResult_t) -> Result<(), String> {
    result.result().map(|_| ()).map_err(|error| {
        // SAFETY: both give text, or nothing, and need no communicator for it.
        let texts =
            unsafe { [nccl::ncclGetErrorString(error.0), nccl::ncclGetLastError(std::ptr::null_mut())] };
        let [what, last] = texts.map(|text| match text.is_null() {
            true => String::new(),
            // SAFETY: the text ends with a zero, and is static or the thread's own, so that nothing changes it meanwhile.
            false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
        });
        match last.is_empty() {
            true => format!("NCCL: {what}; NCCL_DEBUG=INFO tells more"),
            false => format!("NCCL: {what}: {last}"),
        }
    })
}
