//! One run of one program: its whole input first, a cgroup of its own, an end at the deadline.
//!
//! **The input is complete before the program exists.** It is written into the pipe, checked, and the writing end is
//! closed; only then is the program started. Were it written afterwards, a death of this daemon in between would leave
//! the agent with an empty input, and agents that read an empty input *reboot* their target.
//!
//! **Its processes are killed as a whole,** at the deadline, when the caller loses interest (the future is dropped), and
//! after the program's own end, so that nothing is left that could act later, in a session of its own neither. A thread
//! of its own waits for the end without reaping, so that the group's number cannot have passed to another process when
//! it is used. When the daemon can do none of it, the leash ends them at the deadline.

use super::confinement::{Confinement, RunName};
use super::leashes::{Leash, Leashes};
use super::spawn::{self, Door, Program};
use crate::clock;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// Where agents look for the programs that they need.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of each output stream is kept, from its end.
const KEEP: usize = 256 * 1024;
/// How long the last words of an ended program are waited for. Only what cannot be killed can hold them back.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// By itself, with this status; a signal counts as 128 and its number, as in a shell.
    Exited(i32),
    /// Killed at the deadline.
    TimedOut,
}

/// A finished run.
#[derive(Debug)]
pub struct Finished {
    pub end: End,
    pub stdout: String,
    pub stderr: String,
}

/// Why a run did not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the options could not be written as a whole ({bytes} bytes); nothing was started")]
    Input { bytes: usize, source: io::Error },
    #[error("nothing would end it if this daemon died: its leash cannot be started; nothing was started")]
    Leash { source: io::Error },
    #[error("it cannot be started")]
    Start { source: io::Error },
}

/// Runs the program without arguments, with `input` on its standard input, for at most `limit`, leashed as `name`.
pub async fn run(
    program: &Path,
    input: &str,
    limit: Duration,
    leashes: &Leashes,
    name: &RunName,
) -> Result<Finished, StartError> {
    let stdin = filled_pipe(input).map_err(|source| StartError::Input { bytes: input.len(), source })?;
    let until = clock::now() + limit;
    let leash = leashes.take(name, until).map_err(|source| StartError::Leash { source })?;
    let environment: Vec<_> = [("PATH", PATH), ("LC_ALL", "C")].into_iter().chain(leash.variable()).collect();
    let (pid, out, err) = match begin(program, &environment, stdin, leash.door()) {
        Ok(begun) => begun,
        Err(source) => {
            std::thread::spawn(move || leash.end());
            return Err(StartError::Start { source });
        }
    };
    let (mut group, ended) = Group::watch(pid, leash);
    // A failure here would only be one to make them non-blocking.
    let receive = |pipe: io::PipeReader| Tail::read(pipe::Receiver::from_owned_fd(pipe.into()).ok());
    let (out, err) = (receive(out), receive(err));
    let end = match tokio::time::timeout(limit, ended).await {
        // The leash looks at the same moment, and may be the first.
        Ok(Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))) if clock::now() >= until => End::TimedOut,
        Ok(Ok(status)) => End::Exited(code(status)),
        // The watching thread cannot end without an answer; were it so, nothing would be known: no success.
        Ok(Err(_)) => End::Exited(-1),
        Err(_) => End::TimedOut,
    };
    group.kill();
    Ok(Finished { end, stdout: out.text().await, stderr: err.text().await })
}

/// Starts the program and returns when it runs: the process, its output and its errors.
fn begin(
    program: &Path,
    environment: &[(&str, &str)],
    stdin: io::PipeReader,
    door: Option<&Door>,
) -> io::Result<(Pid, io::PipeReader, io::PipeReader)> {
    let (stdout, out) = io::pipe()?;
    let (stderr, err) = io::pipe()?;
    let streams = [stdin.as_fd(), out.as_fd(), err.as_fd()];
    let program = Program { path: program, arguments: &[], environment, streams, door, yields: false };
    Ok((spawn::start(&program)?.confirm()?, stdout, stderr))
}

/// The reading end of a pipe that already holds the whole input, its writing end closed.
fn filled_pipe(input: &str) -> io::Result<io::PipeReader> {
    let (reader, mut writer) = io::pipe()?;
    // More than the pipe holds is an error, not a wait for a reader that does not exist yet.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    writer.write_all(input.as_bytes())?;
    Ok(reader)
}

fn code(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => -1,
    }
}

/// Everything that a run consists of. It dies with this value.
struct Group {
    leader: Pid,
    confinement: Confinement,
    /// Whether the leader was reaped: then the number may belong to others. Held while a signal is sent.
    reaped: Arc<Mutex<bool>>,
}

impl Group {
    /// Watches the leader on a thread of its own, which reaps it at its end, once everything else of the run is killed.
    fn watch(leader: Pid, mut leash: Leash) -> (Group, oneshot::Receiver<WaitStatus>) {
        let reaped = Arc::new(Mutex::new(false));
        let group = Group { leader, confinement: leash.confinement().clone(), reaped: reaped.clone() };
        let (tell, ended) = oneshot::channel();
        std::thread::spawn(move || {
            if let Err(error) = leash.confirm() {
                tracing::error!(%error, "an agent is ended: its leash could not be started");
                leash.confinement().kill();
            }
            while waitid(Id::Pid(leader), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
            let mut reaped = reaped.lock().expect("no holder of this lock can panic");
            // What the leader leaves behind must not act later. ESRCH only says that nothing is left.
            leash.confinement().kill();
            let _ = killpg(leader, Signal::SIGKILL);
            *reaped = true;
            if let Ok(status) = waitpid(leader, None) {
                // Nobody listens any more when the deadline has passed.
                let _ = tell.send(status);
            }
            drop(reaped);
            leash.end();
        });
        (group, ended)
    }

    fn kill(&mut self) {
        let reaped = self.reaped.lock().expect("no holder of this lock can panic");
        if !*reaped {
            self.confinement.kill();
            let _ = killpg(self.leader, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The end of an output stream, read as it comes so that the program never waits for its reader.
struct Tail {
    kept: Arc<Mutex<Vec<u8>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Tail {
    fn read<R: AsyncRead + Unpin + Send + 'static>(stream: Option<R>) -> Tail {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let into = kept.clone();
        let task = tokio::spawn(async move {
            let Some(mut stream) = stream else { return };
            let mut chunk = vec![0; 8192];
            while let Ok(count @ 1..) = stream.read(&mut chunk).await {
                let mut kept = into.lock().expect("no holder of this lock can panic");
                kept.extend_from_slice(&chunk[..count]);
                let surplus = kept.len().saturating_sub(KEEP);
                kept.drain(..surplus);
            }
        });
        Tail { kept, task }
    }

    async fn text(mut self) -> String {
        if tokio::time::timeout(LAST_WORDS, &mut self.task).await.is_err() {
            self.task.abort();
        }
        String::from_utf8_lossy(&self.kept.lock().expect("no holder of this lock can panic")).into_owned()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.task.abort();
    }
}
