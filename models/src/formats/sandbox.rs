//! A thread of its own for what a model's folder can make as large, deep or slow as its author likes: a chat template is a
//! program, and a tokenizer a list of rewritings.
//!
//! The thread's stack is large enough for whatever is let in, a panic on it is an error, its work has a deadline, and its
//! memory a budget, which [`Allocator`] keeps where a program has installed it. Work that passes a limit cannot be unwound
//! from where it is, so its thread is left where it stands, asleep if it was memory, and never used again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fmt, thread};

/// Bytes of the thread's stack. They are reserved, and become memory only where they are touched. The deepest template and the
/// deepest values that are let in take less than an eighth of it.
const STACK: usize = 512 << 20;
/// How long a passed budget may go unnoticed; an answer is taken at once.
const WATCH: Duration = Duration::from_millis(5);

/// What one piece of work may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes that it holds at any time.
    pub bytes: usize,
    /// Allocations that it holds at any time. What nests in memory takes one a level, so this bounds the depth of values.
    pub blocks: usize,
    /// From its start to its end.
    pub time: Duration,
}

/// The thread, started when it is first needed. Clones share it.
#[derive(Clone)]
pub(crate) struct Sandbox {
    state: Arc<Mutex<State>>,
}

enum State {
    Idle,
    Running(Worker),
    /// It passed a limit, which this says; so does every later piece of work.
    Broken(String),
}

struct Worker {
    jobs: Sender<Box<dyn FnOnce() + Send>>,
    passed: &'static AtomicU8,
}

/// What a thread's [`AtomicU8`] says: nothing, or which budget was passed.
const WITHIN: u8 = 0;
const BYTES: u8 = 1;
const BLOCKS: u8 = 2;

impl Sandbox {
    pub fn new() -> Sandbox {
        Sandbox { state: Arc::new(Mutex::new(State::Idle)) }
    }

    /// Does the work on the thread and waits for it.
    ///
    /// # Errors
    /// The limit that it passed, as the end of a sentence about it, or the message that it panicked with.
    pub fn run<T: Send + 'static>(&self, limits: Limits, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let State::Idle = &*state {
            *state = State::Running(Worker::start()?);
        }
        let worker = match &*state {
            State::Running(worker) => worker,
            State::Broken(message) => return Err(message.clone()),
            State::Idle => unreachable!("it was started above"),
        };
        let (reply, answer) = mpsc::channel();
        let passed = worker.passed;
        let job = Box::new(move || {
            let outcome = within_budget(limits, passed, || catch_unwind(AssertUnwindSafe(work)));
            // Nobody waits where the deadline has passed.
            let _ = reply.send(outcome.map_err(|panic| format!("fails: {}", panic_message(&*panic))));
        });
        let deadline = Instant::now() + limits.time;
        let mut heard = worker.jobs.send(job).map_err(|_| RecvTimeoutError::Disconnected);
        let message = loop {
            match heard.and_then(|()| answer.recv_timeout(WATCH)) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Disconnected) => break "ends the thread that it runs on".to_string(),
                Err(RecvTimeoutError::Timeout) => heard = Ok(()),
            }
            match passed.load(Ordering::Acquire) {
                BYTES => break format!("takes more than {} MiB of memory", limits.bytes >> 20),
                BLOCKS => break format!("makes more than {} values", limits.blocks),
                _ if Instant::now() >= deadline => break format!("takes longer than {:?}", limits.time),
                _ => {}
            }
        };
        *state = State::Broken(message.clone());
        Err(message)
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sandbox")
    }
}

impl Worker {
    fn start() -> Result<Worker, String> {
        let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        // It outlives the thread, which may outlive everything else.
        let passed = Box::leak(Box::new(AtomicU8::new(WITHIN)));
        thread::Builder::new()
            .name(NAME.into())
            .stack_size(STACK)
            .spawn(move || queue.into_iter().for_each(|job| job()))
            .map_err(|error| format!("needs a thread with a stack of {} MiB: {error}", STACK >> 20))?;
        Ok(Worker { jobs, passed })
    }
}

const NAME: &str = "sandbox";

/// Keeps panics in a sandbox off the terminal, where they are errors like others: for the start of a program.
pub fn silence_panics() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().name() != Some(NAME) {
            report(info);
        }
    }));
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

/// The system's allocator, which also counts for threads that are on a budget. A program installs it:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: wgtune_models::formats::sandbox::Allocator = wgtune_models::formats::sandbox::Allocator;
/// ```
///
/// Without it, hostile chat templates and tokenizers are held to their deadline, and not to their memory.
pub struct Allocator;

/// What the work on this thread holds, and may hold.
struct Account {
    passed: Cell<Option<&'static AtomicU8>>,
    bytes: Cell<isize>,
    blocks: Cell<isize>,
    limit_bytes: Cell<isize>,
    limit_blocks: Cell<isize>,
}

thread_local! {
    static ACCOUNT: Account = const {
        Account {
            passed: Cell::new(None),
            bytes: Cell::new(0),
            blocks: Cell::new(0),
            limit_bytes: Cell::new(0),
            limit_blocks: Cell::new(0),
        }
    };
}

fn within_budget<T>(limits: Limits, passed: &'static AtomicU8, work: impl FnOnce() -> T) -> T {
    ACCOUNT.with(|account| {
        let count = |limit: usize| isize::try_from(limit).unwrap_or(isize::MAX);
        account.bytes.set(0);
        account.blocks.set(0);
        account.limit_bytes.set(count(limits.bytes));
        account.limit_blocks.set(count(limits.blocks));
        account.passed.set(Some(passed));
        let outcome = work();
        account.passed.set(None);
        outcome
    })
}

/// Enters what this thread takes or gives back; sleeps for ever where that passes its budget.
fn enter(bytes: isize, blocks: isize) {
    let _ = ACCOUNT.try_with(|account| {
        let Some(passed) = account.passed.get() else { return };
        account.bytes.set(account.bytes.get().saturating_add(bytes));
        account.blocks.set(account.blocks.get().saturating_add(blocks));
        let over = if account.bytes.get() > account.limit_bytes.get() {
            BYTES
        } else if account.blocks.get() > account.limit_blocks.get() {
            BLOCKS
        } else {
            return;
        };
        passed.store(over, Ordering::Release);
        loop {
            thread::sleep(Duration::from_secs(3600));
        }
    });
}

fn size(layout: Layout) -> isize {
    layout.size() as isize
}

// SAFETY: every call goes on to the system's allocator as it came. What is done before touches cells of this thread, neither
// allocates nor unwinds, and at worst never returns. Rust has no other way to bound what code of others allocates.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        enter(size(layout), 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        enter(size(layout), 1);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        enter(new_size as isize - size(layout), 0);
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        enter(-size(layout), -1);
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 1 << 20, blocks: 1000, time: Duration::from_secs(20) };

    #[test]
    fn work_within_its_limits_is_done_whatever_came_before() {
        let sandbox = Sandbox::new();
        for round in 0..100 {
            // What is freed makes room again.
            let bytes = sandbox.run(LIMITS, move || (0..100).map(|_| vec![round; 100_000].len()).sum::<usize>());
            assert_eq!(bytes, Ok(10_000_000));
        }
    }

    #[test]
    fn work_past_a_budget_is_an_error_and_so_is_all_after_it() {
        for (work, expected) in [
            (Box::new(|| vec![1u8; 2 << 20].len()) as Box<dyn FnOnce() -> usize + Send>, "takes more than 1 MiB of memory"),
            (Box::new(|| (0..2000).map(Box::new).collect::<Vec<_>>().len()), "makes more than 1000 values"),
        ] {
            let sandbox = Sandbox::new();
            assert_eq!(sandbox.run(LIMITS, work), Err(expected.into()));
            assert_eq!(sandbox.clone().run(LIMITS, || 1), Err(expected.into()));
        }
    }

    #[test]
    fn a_vector_that_grows_is_counted_by_what_it_holds() {
        let grow = |bytes: usize| {
            Sandbox::new().run(LIMITS, move || {
                let mut all = Vec::new();
                (0..bytes).for_each(|byte| all.push(byte as u8));
                all.len()
            })
        };
        assert_eq!(grow(1 << 20), Ok(1 << 20));
        assert!(grow((1 << 20) + 1).is_err());
    }

    #[test]
    fn work_past_its_deadline_is_an_error() {
        let limits = Limits { time: Duration::from_millis(50), ..LIMITS };
        let forever = || loop {
            thread::sleep(Duration::from_secs(3600));
        };
        assert_eq!(Sandbox::new().run(limits, forever), Err::<(), _>("takes longer than 50ms".into()));
    }

    #[test]
    fn a_panic_is_an_error_and_the_thread_goes_on() {
        let sandbox = Sandbox::new();
        assert_eq!(sandbox.run(LIMITS, || panic!("of {} things", 3)), Err::<(), _>("fails: of 3 things".into()));
        assert_eq!(sandbox.run(LIMITS, || 4), Ok(4));
    }
}
