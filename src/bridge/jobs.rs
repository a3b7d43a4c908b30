//! Futures that run side by side on the task that waits for them.
//!
//! Cheaper than a task each, and a job that is given up is gone at once. A job that panics takes nothing
//! else along.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::task::unconstrained;

/// A future to be run.
pub(super) type Job<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The job panicked; the panic hook has said why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panicked;

/// Names a running job. Given again to a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Slot(usize);

/// How a job began.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begun<T> {
    /// It needed no waiting.
    Done(Result<T, Panicked>),
    /// It runs here.
    Running(Slot),
}

/// All running jobs.
pub(super) struct Jobs<T> {
    places: Vec<Place<T>>,
    free: Vec<Slot>,
    woken: Arc<Woken>,
}

struct Place<T> {
    job: Option<Job<T>>,
    alarm: Arc<Alarm>,
    waker: Waker,
}

/// The jobs that may have come further, and the task that should look.
#[derive(Default)]
struct Woken(Mutex<(VecDeque<Slot>, Option<Waker>)>);

/// Wakes one job.
struct Alarm {
    slot: Slot,
    /// Whether the slot stands among the woken ones.
    is_rung: AtomicBool,
    woken: Arc<Woken>,
}

impl<T> Jobs<T> {
    /// Begins `job`, by polling it once before this returns.
    ///
    /// That is outside of tokio's budget, because a poll that has no budget left does nothing.
    pub(super) fn begin(&mut self, job: Job<T>) -> Begun<T> {
        let slot = self.free.pop().unwrap_or_else(|| self.add_place());
        let place = self.places.get_mut(slot.0).expect("every slot has a place");
        let job = place.job.insert(job);
        let mut context = Context::from_waker(&place.waker);
        match poll(pin!(unconstrained(job.as_mut())), &mut context) {
            Poll::Pending => Begun::Running(slot),
            Poll::Ready(outcome) => {
                self.end(slot);
                Begun::Done(outcome)
            }
        }
    }

    /// Drops a job. Does nothing if none runs there.
    pub(super) fn end(&mut self, slot: Slot) {
        if let Some(place) = self.places.get_mut(slot.0)
            && place.job.take().is_some()
        {
            self.free.push(slot);
        }
    }

    /// Looks for a job that is done, and has `context` woken when there may be another.
    pub(super) fn poll_next(&mut self, context: &Context<'_>) -> Poll<(Slot, Result<T, Panicked>)> {
        let mut woken = {
            let mut inner = self.woken.lock();
            if !inner.1.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                inner.1 = Some(context.waker().clone());
            }
            std::mem::take(&mut inner.0)
        };
        // What is woken again meanwhile waits for the next call, or this one might never end.
        while let Some(slot) = woken.pop_front() {
            let Some(place) = self.places.get_mut(slot.0) else {
                continue;
            };
            place.alarm.is_rung.store(false, Ordering::Release);
            let Some(job) = &mut place.job else {
                continue;
            };
            let mut context = Context::from_waker(&place.waker);
            if let Poll::Ready(outcome) = poll(job.as_mut(), &mut context) {
                self.end(slot);
                let mut inner = self.woken.lock();
                woken.append(&mut inner.0);
                inner.0 = woken;
                return Poll::Ready((slot, outcome));
            }
        }
        Poll::Pending
    }

    /// Drops all jobs.
    pub(super) fn clear(&mut self) {
        for index in 0..self.places.len() {
            self.end(Slot(index));
        }
    }

    fn add_place(&mut self) -> Slot {
        let slot = Slot(self.places.len());
        let alarm = Arc::new(Alarm {
            slot,
            is_rung: AtomicBool::new(false),
            woken: Arc::clone(&self.woken),
        });
        let waker = Waker::from(Arc::clone(&alarm));
        self.places.push(Place { job: None, alarm, waker });
        slot
    }
}

impl<T> Default for Jobs<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new(), woken: Arc::default() }
    }
}

impl<T> fmt::Debug for Jobs<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("places", &self.places.len()).finish_non_exhaustive()
    }
}

impl Woken {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<Slot>, Option<Waker>)> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let waker = {
            let mut inner = self.woken.lock();
            inner.0.push_back(self.slot);
            inner.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A panic is caught, and the job is not polled again: nobody sees what it left half done.
fn poll<T>(
    job: Pin<&mut (impl Future<Output = T> + ?Sized)>,
    context: &mut Context<'_>,
) -> Poll<Result<T, Panicked>> {
    match catch_unwind(AssertUnwindSafe(|| job.poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(_) => Poll::Ready(Err(Panicked)),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};

    use tokio::sync::oneshot;

    use super::*;

    async fn next<T>(jobs: &mut Jobs<T>) -> (Slot, Result<T, Panicked>) {
        poll_fn(|context| jobs.poll_next(context)).await
    }

    #[tokio::test]
    async fn jobs_are_done_in_the_order_in_which_they_can_be() {
        let mut jobs = Jobs::default();
        let mut ends = Vec::new();
        for number in 0..100 {
            let (end, ended) = oneshot::channel();
            let job = Box::pin(async move { (number, ended.await.unwrap()) });
            assert_eq!(jobs.begin(job), Begun::Running(Slot(number)));
            ends.push(end);
        }
        tokio::spawn(async move {
            for end in ends.into_iter().rev() {
                end.send("done").unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut all = Vec::new();
        for _ in 0..100 {
            all.push(next(&mut jobs).await.1.unwrap().0);
        }
        assert_eq!(all, (0..100).rev().collect::<Vec<_>>());
        assert_eq!(jobs.begin(Box::pin(ready((7, "now")))), Begun::Done(Ok((7, "now"))));
    }

    #[tokio::test]
    async fn a_job_that_is_ended_is_dropped_at_once() {
        let mut jobs = Jobs::default();
        let (held, dropped) = oneshot::channel::<()>();
        let Begun::Running(slot) = jobs.begin(Box::pin(async move {
            let _held = held;
            pending::<()>().await;
        })) else {
            panic!("it waits for ever");
        };
        jobs.end(slot);
        jobs.end(slot);
        assert!(dropped.await.is_err());
        assert_eq!(jobs.free, [slot]);
    }

    #[tokio::test]
    async fn a_job_that_panics_takes_nothing_along() {
        let mut jobs = Jobs::default();
        let (end, ended) = oneshot::channel::<()>();
        let doomed = jobs.begin(Box::pin(async move {
            ended.await.unwrap();
            panic!("on purpose");
        }));
        let (other_end, other_ended) = oneshot::channel();
        jobs.begin(Box::pin(async move { other_ended.await.unwrap() }));
        end.send(()).unwrap();
        let (slot, outcome) = next::<()>(&mut jobs).await;
        assert_eq!((Begun::Running(slot), outcome), (doomed, Err(Panicked)));
        other_end.send(()).unwrap();
        assert_eq!(next(&mut jobs).await.1, Ok(()));
    }
}
