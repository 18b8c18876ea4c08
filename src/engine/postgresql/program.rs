//! Programs run as the database's operating system user: PostgreSQL refuses to run as root, and what runs with less
//! can harm less. The daemon's privileges (real-time scheduling, OOM protection, supplementary groups) are taken off
//! in the child before the program starts.

use super::error::{EngineError, Result};
use super::runs::{Place, Runs};
use crate::engine::enclosure::step_in;
use crate::rights::Rights;
use crate::types::{ServiceName, Span};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

/// What a program says on standard error beyond this is not read, and ends it.
const SAID_LIMIT: u64 = 1 << 20;

/// The operating system's user that owns the database.
#[derive(Clone, Debug)]
pub struct OsUser {
    uid: u32,
    gid: u32,
    groups: Vec<libc::gid_t>,
    home: PathBuf,
    /// Where its programs run.
    runs: Runs,
}

impl OsUser {
    /// Looks the user up, its supplementary groups included: they cannot be looked up between fork and exec.
    pub fn find(name: &str, service: &ServiceName, runs: Runs) -> Result<Self> {
        let missing = || EngineError::NoSuchUser { service: service.clone(), user: name.to_owned() };
        let user = nix::unistd::User::from_name(name).ok().flatten().ok_or_else(missing)?;
        let c_name = CString::new(name).map_err(|_| missing())?;
        let groups = nix::unistd::getgrouplist(&c_name, user.gid).map_err(|_| missing())?;
        Ok(OsUser {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
            home: user.dir,
            runs,
        })
    }

    /// A place for a program that is no [`Run`].
    pub fn begin(&self) -> Option<Place> {
        self.runs.begin()
    }

    /// Its rights for files.
    pub fn rights(&self) -> Rights {
        Rights::of(self.uid, self.gid, self.groups.clone())
    }

    /// A command that becomes this user, in a session of its own, through `door` (into a cgroup) where given.
    pub fn command(&self, program: &Path, door: Option<File>) -> std::process::Command {
        self.scored(program, door, ORDINARY)
    }

    /// The same for a server: the kernel takes a process that serves one session before the one that holds all together,
    /// whose end is the end of every session.
    pub fn postmaster(&self, program: &Path, door: Option<File>) -> std::process::Command {
        let mut command = self.scored(program, door, PROTECTED);
        command.env("PG_OOM_ADJUST_FILE", "/proc/self/oom_score_adj").env("PG_OOM_ADJUST_VALUE", "0");
        command
    }

    fn scored(&self, program: &Path, door: Option<File>, score: &'static CStr) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
        command.env("HOME", &self.home).current_dir("/").stdin(Stdio::null());
        let (uid, gid, groups) = (self.uid, self.gid, self.groups.clone());
        // SAFETY: between fork and exec only system calls are made, on values that were prepared before.
        unsafe {
            command.pre_exec(move || {
                libc::setsid();
                if let Some(door) = &door {
                    step_in(door)?;
                }
                shed_privileges(score);
                let changed = libc::setgroups(groups.len(), groups.as_ptr()) == 0
                    && libc::setgid(gid) == 0
                    && libc::setuid(uid) == 0;
                libc::umask(0o077);
                if changed { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        command
    }
}

/// What the kernel adds to a process's own badness when it is short of memory.
const ORDINARY: &CStr = c"0";
/// As Debian protects its postmasters.
const PROTECTED: &CStr = c"-900";

/// Takes real-time scheduling and OOM protection off: they were the daemon's. Then this score is set, where that is allowed
/// (CAP_SYS_RESOURCE). What cannot be set stays.
fn shed_privileges(oom_score: &CStr) {
    // SAFETY: system calls on constants and on a local structure; failures are of no consequence.
    unsafe {
        let ordinary: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const ordinary);
        libc::setpriority(libc::PRIO_PROCESS, 0, 0);
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if score >= 0 {
            for value in [ORDINARY, oom_score] {
                libc::write(score, value.as_ptr().cast(), value.count_bytes());
            }
            libc::close(score);
        }
    }
}

/// One program to run to its end.
pub struct Run<'a> {
    pub user: &'a OsUser,
    pub program: PathBuf,
    pub arguments: Vec<&'a OsStr>,
    pub environment: Vec<(&'a str, &'a OsStr)>,
    /// What it reads on standard input.
    pub input: String,
    pub deadline: Duration,
}

impl Run<'_> {
    /// Runs it and hands over each line of its standard output as it comes, so that nothing of it is kept. Brings whether it
    /// succeeded, and the end of what it said on standard error. All of it is killed at the deadline and when the caller goes
    /// away. It gets no input.
    pub async fn lines(self, mut each: impl AsyncFnMut(&str) -> Result<()>) -> Result<(bool, String)> {
        let place = self.user.runs.begin();
        let mut command = self.user.command(&self.program, place.as_ref().and_then(Place::door));
        command.args(&self.arguments).envs(self.environment.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawn = |source| EngineError::Spawn { program: self.program.clone(), source };
        let mut child = tokio::process::Command::from(command).spawn().map_err(spawn)?;
        let mut session = Group { group: child.id().and_then(|id| i32::try_from(id).ok()) };
        let mut out = BufReader::new(child.stdout.take().expect("standard output was asked for"));
        let mut err = child.stderr.take().expect("standard error was asked for").take(SAID_LIMIT);
        let run = async {
            let reading = async {
                let mut line = Vec::new();
                while out.read_until(b'\n', &mut line).await.map_err(spawn)? > 0 {
                    each(String::from_utf8_lossy(&line).trim_end()).await?;
                    line.clear();
                }
                Ok::<_, EngineError>(())
            };
            let saying = async move {
                let mut said = Vec::new();
                // What cannot be read of it is not said.
                let _ = err.read_to_end(&mut said).await;
                String::from_utf8_lossy(&said).into_owned()
            };
            let (read, said) = tokio::join!(reading, saying);
            read?;
            Ok::<_, EngineError>((child.wait().await.map_err(spawn)?.success(), last_lines(&said)))
        };
        let late = || EngineError::ProgramDeadline { program: self.program.clone(), after: self.deadline };
        let ended = tokio::time::timeout(self.deadline, run).await.unwrap_or_else(|_| Err(late()))?;
        session.group = None;
        Ok(ended)
    }

    /// Runs it; all of it is killed at the deadline, when the caller goes away, and what is left of it when it has ended.
    /// Standard output and error together on success.
    pub async fn finish(self) -> Result<String> {
        self.finish_telling(|_| false).await
    }

    /// The same; `takes` hears each line of standard error when it is written, and what it takes is no part of the result.
    pub async fn finish_telling(self, takes: impl Fn(&str) -> bool) -> Result<String> {
        let place = self.user.runs.begin();
        let mut command = self.user.command(&self.program, place.as_ref().and_then(Place::door));
        command.args(&self.arguments).envs(self.environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = tokio::process::Command::from(command)
            .spawn()
            .map_err(|source| EngineError::Spawn { program: self.program.clone(), source })?;
        // The child made itself the leader of a session, hence of a process group of the same number.
        let mut session = Group { group: child.id().and_then(|id| i32::try_from(id).ok()) };
        let mut input = child.stdin.take().expect("standard input was asked for");
        let errors = child.stderr.take().expect("standard error was asked for");
        let text = self.input;
        let run = async {
            let write = async {
                // A program that ends without reading its input says why by its status.
                let _ = input.write_all(text.as_bytes()).await;
                drop(input);
            };
            let ((), errors, output) = tokio::join!(write, lines(errors, &takes), child.wait_with_output());
            output.map(|output| (output, errors))
        };
        let finished = tokio::time::timeout(self.deadline, run).await;
        let (output, errors) = match finished {
            Err(_) => return Err(EngineError::ProgramDeadline { program: self.program, after: self.deadline }),
            Ok(Err(source)) => return Err(EngineError::Spawn { program: self.program, source }),
            Ok(Ok(ended)) => ended,
        };
        session.group = None;
        let text = [output.stdout, errors].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(EngineError::Program {
            program: self.program,
            status: output.status.to_string(),
            output: last_lines(&text),
        })
    }
}

impl Run<'_> {
    /// Runs a program that may say much, and for hours: of all that is only the end kept, which comes with an end without
    /// success and with one by the deadline. It gets no input, and what it leaves running does not hold it up.
    pub async fn finish_with_last_words(self) -> Result<()> {
        let place = self.user.runs.begin();
        let mut command = self.user.command(&self.program, place.as_ref().and_then(Place::door));
        command.args(&self.arguments).envs(self.environment.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawn = |source| EngineError::Spawn { program: self.program.clone(), source };
        let mut child = tokio::process::Command::from(command).spawn().map_err(spawn)?;
        let mut session = Group { group: child.id().and_then(|id| i32::try_from(id).ok()) };
        let out = child.stdout.take().expect("standard output was asked for");
        let err = child.stderr.take().expect("standard error was asked for");
        let said = [Mutex::default(), Mutex::default()];
        let ends = async {
            let mut hears = pin!(async { tokio::join!(tail(out, &said[0]), tail(err, &said[1])) });
            tokio::select! {
                biased;
                _ = &mut hears => return child.wait().await,
                status = child.wait() => {
                    // What is in the pipe already is heard; whoever else holds it open is not waited for.
                    let _ = tokio::time::timeout(LAST_WORDS, hears).await;
                    status
                }
            }
        };
        let ended = tokio::time::timeout(self.deadline, ends).await;
        let status = match ended {
            Ok(status) => {
                session.group = None;
                status.map_err(spawn)?
            }
            Err(_) => {
                let status = format!("killed after {} without an end", Span(self.deadline));
                return Err(EngineError::Program { program: self.program, status, output: last_words(&said) });
            }
        };
        if status.success() {
            return Ok(());
        }
        let status = status.to_string();
        Err(EngineError::Program { program: self.program, status, output: last_words(&said) })
    }
}

/// So much of what a program says is kept.
const TAIL: usize = 4096;
/// For so long a pipe is heard whose program has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Reads to the end, and keeps the end.
async fn tail(mut from: impl AsyncRead + Unpin, said: &Mutex<Vec<u8>>) {
    let mut read = [0; TAIL];
    // What cannot be read any more has ended.
    while let Ok(length @ 1..) = from.read(&mut read).await {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(&read[..length]);
        let before = said.len().saturating_sub(TAIL);
        said.drain(..before);
    }
}

/// Its last lines, those of standard error last: when each was said is not known. A display of progress overwrites its line.
fn last_words(said: &[Mutex<Vec<u8>>; 2]) -> String {
    let said = said.each_ref().map(|said| said.lock().unwrap_or_else(PoisonError::into_inner).clone());
    last_lines(&String::from_utf8_lossy(&said.join(&b'\n')).replace('\r', "\n"))
}

/// Reads to the end, and brings what nobody took.
async fn lines(from: impl AsyncRead + Unpin, takes: &impl Fn(&str) -> bool) -> Vec<u8> {
    let (mut from, mut line, mut rest) = (BufReader::new(from), Vec::new(), Vec::new());
    // What cannot be read any more has ended.
    while from.read_until(b'\n', &mut line).await.is_ok_and(|length| length > 0) {
        if !takes(&String::from_utf8_lossy(&line)) {
            rest.extend_from_slice(&line);
        }
        line.clear();
    }
    rest
}

/// A running program's session: killed when dropped, unless it has ended.
pub struct Group {
    group: Option<i32>,
}

impl Group {
    /// Of the program with this process, which leads it.
    pub fn of(leader: Option<i32>) -> Self {
        Group { group: leader }
    }

    /// What is left of it is killed.
    pub fn end(&mut self) {
        if let Some(group) = self.group.take() {
            // SAFETY: a plain system call on a group that we made: what is left of it keeps its number.
            unsafe { libc::killpg(group, libc::SIGKILL) };
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// The last few lines of a program's output, on one line: what fits into an outcome.
pub fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join(" | ")
}
