//! An HTTP server that speaks OpenAI's chat completions, over one loaded checkpoint.
//!
//! A request goes from `routes` through `intake` (text and pictures to a prompt, on any thread) to `model` (the one thread that
//! computes), and its answer comes back through `completion`. A request holds a ticket from its first byte to its last; there
//! are so many tickets that the memory of all requests is bounded, and whoever gets none is told to come back.

mod api;
mod completion;
mod connections;
mod edge;
mod intake;
mod log;
mod media;
mod metrics;
mod model;
mod routes;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use tg_llava_core::assistant::AssistantOptions;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot, watch};

pub use connections::ConnectionLimits;
pub use edge::{Cors, Keys};
pub use intake::PictureLimits;
pub use log::{LogFormat, install as install_log};
pub use media::{Hosts, Media};
pub use model::ModelLimits;

use self::intake::Intake;
use self::metrics::Metrics;
use self::model::Command;
use crate::console::{Console, print};
use crate::device::{self, ComputeArgs, DefaultDtype};
use crate::failure::Failure;
use crate::interrupt::{self, Request};
use crate::load;

/// Bytes of the model's thread's stack, as the program's first thread has them.
const MODEL_STACK: usize = 8 << 20;
/// How long connections that do nothing are waited for at the end.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// All that can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub address: SocketAddr,
    /// The checkpoint's folder.
    pub folder: PathBuf,
    /// How it is loaded; device and number format come from `compute`.
    pub assistant: AssistantOptions,
    /// Device and number format.
    pub compute: ComputeArgs,
    /// What the model is called.
    pub name: String,
    /// Adapters over it, by their names.
    pub adapters: Vec<(String, PathBuf)>,
    /// Who may ask.
    pub keys: Keys,
    /// Which other sites' pages may ask.
    pub cors: Cors,
    /// Which pictures are taken.
    pub pictures: PictureLimits,
    /// How much the model does at once.
    pub model: ModelLimits,
    /// What connections may take.
    pub connections: ConnectionLimits,
    /// Most requests that wait, besides those under way.
    pub queue: usize,
    /// Most bytes of a request.
    pub max_body_bytes: usize,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How long running requests may take once the server is asked to end.
    pub grace: Duration,
}

/// How far the server's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Requests are taken.
    Serving,
    /// Those that were taken are answered.
    Draining,
    /// Everything is dropped.
    Stopping,
}

/// What all handlers share.
struct App {
    settings: Settings,
    phase: watch::Receiver<Phase>,
    ready: OnceLock<Arc<Ready>>,
    tickets: Arc<Semaphore>,
    decoders: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    /// Requests so far, which numbers them.
    asked: AtomicU64,
    created: u64,
}

/// The loaded checkpoint.
struct Ready {
    /// The checkpoint's, then those of the adapters.
    intakes: Vec<Arc<Intake>>,
    model: Sender<Command>,
    fingerprint: String,
}

/// Serves until it is asked to end. The address is printed to stdout once connections are taken, which is before the model is
/// loaded.
///
/// # Errors
/// Where the address is taken, or the checkpoint cannot be loaded.
pub fn run(settings: Settings, console: Console) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_io().enable_time().build();
    let runtime =
        runtime.map_err(|error| Failure::Run(anyhow!(error).context("no threads to serve with")))?;
    let result = runtime.block_on(serve(settings, console));
    // Downloads of pictures may still wait.
    runtime.shutdown_background();
    result
}

async fn serve(settings: Settings, console: Console) -> Result<(), Failure> {
    let (change, phase) = watch::channel(Phase::Serving);
    let listener = TcpListener::bind(settings.address).await;
    let listener = listener.map_err(|error| Failure::input(format_args!("{}: {error}", settings.address)))?;
    let address = listener.local_addr().context("no address").map_err(Failure::Run)?;
    let app = Arc::new(App {
        tickets: Arc::new(Semaphore::new(settings.queue + settings.model.max_running)),
        decoders: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from))),
        metrics: Arc::default(),
        asked: AtomicU64::new(0),
        created: unix_time(),
        ready: OnceLock::new(),
        phase: phase.clone(),
        settings,
    });
    print(&format!("http://{address}\n"))?;
    let failed = spawn_model(app.clone(), console)?;
    listen_for_the_end(change.clone());
    tokio::spawn(end_of_grace(change, app.settings.grace));

    let mut draining = phase.clone();
    let ending = async move {
        let _ = draining.wait_for(|phase| *phase != Phase::Serving).await;
    };
    let limits = app.settings.connections;
    let server = connections::serve(listener, routes::router(app), limits, ending);
    let mut stopping = phase.clone();
    let stopped = async move {
        let _ = stopping.wait_for(|phase| *phase == Phase::Stopping).await;
        tokio::time::sleep(LAST_BYTES).await;
    };
    tokio::select! {
        () = server => {}
        Ok(failure) = failed => return Err(failure),
        () = stopped => {}
    }
    tracing::info!("ended");
    Ok(())
}

/// Starts the thread that loads the model and computes; tells where it cannot.
fn spawn_model(app: Arc<App>, console: Console) -> Result<oneshot::Receiver<Failure>, Failure> {
    let (tell, failed) = oneshot::channel();
    let work = move || {
        let failure = match catch_unwind(AssertUnwindSafe(|| load_and_compute(&app, &console))) {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure,
            Err(panic) => Failure::Run(anyhow!("the model's thread ended: {}", model::message_of(&*panic))),
        };
        let _ = tell.send(failure);
    };
    let thread = std::thread::Builder::new().name("model".into()).stack_size(MODEL_STACK).spawn(work);
    thread.context("no thread for the model").map_err(Failure::Run)?;
    Ok(failed)
}

fn load_and_compute(app: &App, console: &Console) -> Result<(), Failure> {
    let settings = &app.settings;
    let opened = device::open(&settings.compute, DefaultDtype::Fast, console)?;
    let mut assistants = vec![load::assistant(&settings.folder, &opened, &settings.assistant, console)?];
    for (name, folder) in &settings.adapters {
        let adapter =
            load::adapter(folder, (&assistants[0], &settings.folder), &opened, &settings.assistant)?;
        tracing::info!(name, folder = %folder.display(), "adapter");
        assistants.push(adapter);
    }
    let fingerprint =
        format!("tg-llava-{}-{}-{}", env!("CARGO_PKG_VERSION"), opened.spec, opened.dtype.name());
    let (model, commands) = channel();
    tracing::info!(model = settings.name, fingerprint, "ready");
    let intake = |assistant| Arc::new(Intake::new(assistant, settings.pictures.clone()));
    let intakes = assistants.iter().map(intake).collect();
    let _ = app.ready.set(Arc::new(Ready { intakes, model, fingerprint }));
    model::serve(&assistants, settings.model, &commands, &app.metrics);
    Ok(())
}

/// The first request to end lets those under way finish, the second drops them.
fn listen_for_the_end(change: watch::Sender<Phase>) {
    interrupt::listen(&[Request::Interrupt, Request::Terminate], move |request| {
        change.send_modify(|phase| match (*phase, request) {
            (Phase::Serving, _) => *phase = Phase::Draining,
            (Phase::Draining, Request::Interrupt) => *phase = Phase::Stopping,
            (Phase::Stopping, Request::Interrupt) => std::process::exit(interrupt::EXIT_CODE),
            _ => {}
        });
    });
}

async fn end_of_grace(change: watch::Sender<Phase>, grace: Duration) {
    let mut phase = change.subscribe();
    if phase.wait_for(|phase| *phase == Phase::Draining).await.is_ok() {
        tracing::info!("shutting down");
        tokio::time::sleep(grace).await;
        change.send_replace(Phase::Stopping);
    }
}

/// Seconds since 1970.
fn unix_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// An id that nobody guesses.
fn random_id(prefix: &str) -> String {
    format!("{prefix}{:024x}", rand::random::<u128>() >> 32)
}
