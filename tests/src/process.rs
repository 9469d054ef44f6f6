//! Processes by id: signals, children, CPU time and memory, from `/proc`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// Sends `signal` to one process. A process that is gone already is no error.
pub fn signal(pid: i32, signal: Signal) -> Result<()> {
    let id = Pid::from_raw(pid).context("not a process id")?;
    match kill_process(id, signal) {
        Ok(()) => Ok(()),
        Err(error) if error == rustix::io::Errno::SRCH => Ok(()),
        Err(error) => Err(error).with_context(|| format!("signalling process {pid}")),
    }
}

/// The fields of `/proc/PID/stat` from the third (state) on.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold blanks and parentheses, so split after the last one.
    let rest = &text[text.rfind(')')? + 1..];
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// Whether the process runs (a zombie does not).
pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

/// Whether the process id is taken, be it by a zombie.
pub fn exists(pid: i32) -> bool {
    stat(pid).is_some()
}

/// The direct children of a process.
pub fn children(pid: i32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let parent = pid.to_string();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|&child| stat(child).is_some_and(|fields| fields.get(1) == Some(&parent)))
        .collect()
}

/// Waits until the process is gone.
pub fn wait_gone(pid: i32, limit: Duration) -> Result<()> {
    let start = Instant::now();
    while is_alive(pid) {
        if start.elapsed() > limit {
            bail!("process {pid} did not end within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// User plus system CPU seconds a process has used.
pub fn cpu_seconds(pid: i32) -> Result<f64> {
    let fields = stat(pid).with_context(|| format!("process {pid} is gone"))?;
    // utime and stime are fields 14 and 15 of the whole line; USER_HZ is 100 on Linux.
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}

/// Nanoseconds a process has spent on a CPU, from the scheduler: finer than
/// the 10 ms ticks of [`cpu_seconds`], to which it falls back.
pub fn cpu_nanoseconds(pid: i32) -> Result<u64> {
    let precise = std::fs::read_to_string(format!("/proc/{pid}/schedstat"))
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .filter(|&nanoseconds| nanoseconds > 0);
    match precise {
        Some(nanoseconds) => Ok(nanoseconds),
        None => Ok((cpu_seconds(pid)? * 1e9) as u64),
    }
}

/// Resident memory that is the process's own, in bytes: resident minus shared
/// pages, so that touched shared buffers do not count.
pub fn private_bytes(pid: i32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: Vec<u64> = text
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    Ok(pages[1].saturating_sub(pages[2]) * rustix::param::page_size() as u64)
}
