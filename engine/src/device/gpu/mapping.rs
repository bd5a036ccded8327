//! Bytes that come back from a GPU, as a future.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::driver::Driver;
use crate::error::Result;

/// How long another thread may take to pass on an answer that it was given.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first bytes of a buffer that is being mapped, behind all that was submitted before.
pub(crate) struct Mapping {
    driver: Driver,
    buffer: wgpu::Buffer,
    bytes: usize,
    answer: Arc<(Mutex<Answer>, Condvar)>,
}

type Outcome = std::result::Result<(), wgpu::BufferAsyncError>;

/// What the driver said, and whom to tell.
#[derive(Default)]
struct Answer {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

impl Mapping {
    /// Asks for the first `bytes` of a buffer.
    pub(super) fn begin(driver: &Driver, buffer: wgpu::Buffer, bytes: usize) -> Mapping {
        let answer = Arc::<(Mutex<Answer>, Condvar)>::default();
        let heard = answer.clone();
        buffer.map_async(wgpu::MapMode::Read, ..bytes.next_multiple_of(4) as u64, move |outcome| {
            let mut answer = lock(&heard.0);
            answer.outcome = Some(outcome);
            let waker = answer.waker.take();
            drop(answer);
            heard.1.notify_one();
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        Mapping { driver: driver.clone(), buffer, bytes, answer }
    }

    /// Waits for what `read` makes of them.
    pub fn wait<T>(self, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        self.driver.wait()?;
        // Whoever asks the driver is given the answers of all threads, and may pass this one on after the wait is over.
        let (answer, told) = &*self.answer;
        let waited = told.wait_timeout_while(lock(answer), PATIENCE, |answer| answer.outcome.is_none());
        let outcome = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0.outcome.take();
        match outcome {
            Some(outcome) => self.take(outcome, read),
            None => Err(self.driver.rejected("a download", "the driver did not answer".to_string())),
        }
    }

    /// What `read` makes of them, if they are here; otherwise the task is woken to ask again.
    pub fn poll<T>(&mut self, context: &mut Context<'_>, read: impl FnOnce(&[u8]) -> T) -> Poll<Result<T>> {
        // Outside a browser callbacks are called by whoever asks, so that the task has to come back and ask.
        #[cfg(not(target_arch = "wasm32"))]
        if let Err(error) = self.driver.poll(wgpu::PollType::Poll) {
            return Poll::Ready(Err(error));
        }
        let mut answer = lock(&self.answer.0);
        let Some(outcome) = answer.outcome.take() else {
            answer.waker = Some(context.waker().clone());
            #[cfg(not(target_arch = "wasm32"))]
            context.waker().wake_by_ref();
            return Poll::Pending;
        };
        drop(answer);
        Poll::Ready(self.take(outcome, read))
    }

    fn take<T>(&self, outcome: Outcome, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let words = self.bytes.next_multiple_of(4) as u64;
        let mapped = outcome.map_err(|error| error.to_string()).and_then(|()| {
            let mapped = self.buffer.get_mapped_range(..words).map_err(|error| error.to_string())?;
            Ok(read(&mapped[..self.bytes]))
        });
        self.buffer.unmap();
        mapped.map_err(|reason| self.driver.rejected("a download", reason))
    }
}

fn lock(answer: &Mutex<Answer>) -> MutexGuard<'_, Answer> {
    answer.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
